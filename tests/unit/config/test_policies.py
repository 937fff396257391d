import pybreaker
import pytest
import tenacity

from meshlib.config import Config


class Alarm(pybreaker.CircuitBreakerListener):
    pass


class Untouchable(pybreaker.CircuitMemoryStorage):
    @property
    def state(self):
        raise AssertionError("reading the state may be a call over the network")

    @state.setter
    def state(self, value):
        raise AssertionError


def service(**keys):
    return Config.from_mapping({"services": {"a": keys}}).services["a"]


def test_tenacitys_strategies_are_taken_as_they_are():
    stop, wait = (
        tenacity.stop_after_delay(2) | tenacity.stop_after_attempt(3),
        tenacity.wait_random_exponential(max=1),
    )
    retry = service(retry={"stop": stop, "wait": wait}).retry
    assert retry.stop is stop
    assert retry.wait is wait


def test_pybreakers_objects_are_taken_as_they_are_and_not_asked():
    alarm, storage = Alarm(), Untouchable("closed")
    breaker = service(breaker={"listeners": [alarm], "storage": storage}).breaker
    assert breaker.listeners == (alarm,)
    assert breaker.storage is storage


def test_they_stay_the_same_objects_through_a_second_reading():
    stop = tenacity.stop_after_attempt(3)
    config = Config.from_mapping({"services": {"a": {"retry": {"stop": stop}}}})
    from meshlib.config import resolve

    assert resolve(config, {"MESHLIB_SEED": "1"}).services["a"].retry.stop is stop


def test_to_dict_names_them():
    config = Config.from_mapping(
        {"services": {"a": {"retry": {"stop": tenacity.stop_never}, "breaker": {"listeners": [Alarm()]}}}}
    )
    written = config.to_dict()["services"]["a"]
    assert written["retry"]["stop"] == "_stop_never"
    assert written["breaker"]["listeners"] == ["Alarm"]


@pytest.mark.parametrize("key", ["consecutive_failures", "half_open_permits", "success_threshold"])
def test_a_breakers_counts_are_at_least_one(key):
    assert getattr(service(breaker={key: 1}).breaker, key) == 1
