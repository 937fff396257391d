"""What balancers and policies come to, in virtual time: the live cluster that calls use, and servers that are queues."""
