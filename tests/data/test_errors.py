from regrow.data import DataError


def test_data_error_is_a_value_error_of_one_sentence() -> None:
    error = DataError("x must be y, got z")
    assert isinstance(error, ValueError)
    assert str(error) == "x must be y, got z"
