from meshlib.runtime.clock import MonotonicClock


def test_time_never_runs_backwards():
    clock = MonotonicClock()
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)
