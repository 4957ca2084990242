"""Multilayer perceptrons in matrix form, in NumPy: every forward and backward pass written out.

A second and independent account of what the sparse layers of this library compute. Nothing else
here depends on it; it is for checking, and for reading.

References:
    W. Wesselink, B. Grooten, H. van de Wetering, Q. Xiao, D. C. Mocanu, "Batch matrix-form
    equations and implementation of multilayer perceptrons", 2025.
"""

from regrow.matrixform.activations import (
    AllReLU,
    HyperbolicTangent,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    SReLU,
    log_softmax,
    sigmoid,
    softmax,
)
from regrow.matrixform.checking import Errors, check_equations
from regrow.matrixform.initializers import (
    he_normal,
    he_uniform,
    normal,
    uniform,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from regrow.matrixform.layers import BatchNormalization, Linear
from regrow.matrixform.losses import (
    CrossEntropy,
    LogisticCrossEntropy,
    NegativeLogLikelihood,
    SoftmaxCrossEntropy,
    SquaredError,
)
from regrow.matrixform.network import MultilayerPerceptron, one_hot, train, train_batch
from regrow.matrixform.optimizers import (
    GradientDescent,
    Momentum,
    Nesterov,
    constant,
    exponential,
    multi_step,
    step_based,
    time_based,
)
from regrow.matrixform.parameter import Parameter
from regrow.matrixform.rewiring import (
    below_threshold,
    nearest_zero,
    nearest_zero_by_sign,
    rewire,
)
from regrow.matrixform.weights import DenseWeight, SparseWeight

__all__ = [
    "AllReLU",
    "BatchNormalization",
    "CrossEntropy",
    "DenseWeight",
    "Errors",
    "GradientDescent",
    "HyperbolicTangent",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "LogisticCrossEntropy",
    "Momentum",
    "MultilayerPerceptron",
    "NegativeLogLikelihood",
    "Nesterov",
    "Parameter",
    "ReLU",
    "SReLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "SparseWeight",
    "SquaredError",
    "below_threshold",
    "check_equations",
    "constant",
    "exponential",
    "he_normal",
    "he_uniform",
    "log_softmax",
    "multi_step",
    "nearest_zero",
    "nearest_zero_by_sign",
    "normal",
    "one_hot",
    "rewire",
    "sigmoid",
    "softmax",
    "step_based",
    "time_based",
    "train",
    "train_batch",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
