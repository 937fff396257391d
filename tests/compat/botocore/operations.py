"""Real clients of botocore: what an application does with S3, SQS and DynamoDB."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET = "bucket-of-compat"


@pytest.fixture
def client():
    """Makes clients, each with pools of its own."""
    made = []

    def make(service, **options):
        made.append(botocore.session.get_session().create_client(service, config=Config(**options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def s3(client):
    found = client("s3")
    found.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    yield found
    for page in found.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for one in page.get("Contents", []):
            found.delete_object(Bucket=BUCKET, Key=one["Key"])
    found.delete_bucket(Bucket=BUCKET)


@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
def test_an_object_there_and_back(s3, kind, tmp_path):
    body = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(body)
    with (tmp_path / "file").open("rb") as file:
        s3.put_object(
            Bucket=BUCKET, Key="a/b", Body={"bytes": body, "file": file}.get(kind, io.BytesIO(body))
        )
    answer = s3.get_object(Bucket=BUCKET, Key="a/b")
    assert answer["ContentLength"] == len(body)
    assert b"".join(answer["Body"].iter_chunks(65_536)) == body
    part = s3.get_object(Bucket=BUCKET, Key="a/b", Range="bytes=10-19")
    assert part["Body"].read() == body[10:20]
    assert s3.head_object(Bucket=BUCKET, Key="a/b")["ETag"].strip('"') == hashlib.md5(body).hexdigest()


def test_an_object_in_parts_that_are_sent_at_once(s3):
    parts = [bytes([n]) * (5 << 20) for n in range(3)]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]

    def send(number):
        where = {"Bucket": BUCKET, "Key": "parts", "UploadId": upload, "PartNumber": number}
        return {"PartNumber": number, "ETag": s3.upload_part(Body=parts[number - 1], **where)["ETag"]}

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(send, (1, 2, 3)))
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    assert s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == b"".join(parts)


def test_what_is_not_there(s3):
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=BUCKET, Key="nothing")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="nothing")


def test_pages(s3):
    for number in range(7):
        s3.put_object(Bucket=BUCKET, Key=f"key-{number}", Body=b"x")
    pages = list(
        s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 3})
    )
    assert [len(page["Contents"]) for page in pages] == [3, 3, 1]


def test_a_signed_url_is_good_for_others(s3):
    s3.put_object(Bucket=BUCKET, Key="open", Body=b"sesame")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "open"})
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"sesame"


def test_messages(client):
    sqs = client("sqs")
    queue = sqs.create_queue(QueueName="queue-of-compat")["QueueUrl"]
    bodies = {f"message {number}" for number in range(10)}
    entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
    assert len(sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == 10
    got = set()
    while got != bodies:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=4, WaitTimeSeconds=1)
        assert answer["Messages"]
        for message in answer["Messages"]:
            got.add(message["Body"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    sqs.delete_queue(QueueUrl=queue)


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_a_table(client, mode):
    dynamodb = client("dynamodb", retries={"mode": mode}, max_pool_connections=2)
    key = {"AttributeName": "id", "AttributeType": "S"}
    dynamodb.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[key],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.get_waiter("table_exists").wait(TableName="table")

    def put(number):
        dynamodb.put_item(TableName="table", Item={"id": {"S": str(number)}, "n": {"N": str(number)}})

    with ThreadPoolExecutor(4) as pool:  # more than the pool keeps
        list(pool.map(put, range(20)))
    found = dynamodb.get_item(TableName="table", Key={"id": {"S": "7"}})
    assert found["Item"]["n"] == {"N": "7"}
    assert dynamodb.scan(TableName="table", Select="COUNT")["Count"] == 20
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.put_item(
            TableName="table", Item={"id": {"S": "7"}}, ConditionExpression="attribute_not_exists(id)"
        )
    dynamodb.delete_table(TableName="table")
