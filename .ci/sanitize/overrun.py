"""Read one element too many, in a way that no check of arguments can know of."""

import torch

from regrow import _native

indptr = torch.tensor([0, 9])
indices = torch.zeros(8, dtype=torch.int32)  # one less than said
_native.check_structure(indptr.data_ptr(), indices.data_ptr(), 1, 5, 9)
