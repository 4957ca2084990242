"""What is known of the machine."""

from regrow.kernels.machine import describe_machine, processor


def test_machine() -> None:
    assert {"processor", "cores", "system", "python", "kernels"} <= describe_machine().keys()


def test_the_processor_has_a_name_that_stays() -> None:
    assert processor()
    assert processor() == processor()
