"""A small reverse-mode engine: numbers that remember how they were computed.

Every operation makes a `Scalar` with its parents and its slope by each of them, a plain number.
`backward` then walks from the result to the inputs once and applies the chain rule on the way.
"""

import math
from numbers import Real


class Scalar:
    """A number in a graph of numbers, with `+ - * / **`, `tanh`, `relu`, `exp` and `log`.

    Attributes:
        value: a finite float.
        gradient: the derivative, by this number, of the result whose `backward` was called last
            and that depends on this number; None before.
        parents: the scalars it was computed from; none for an input.
        slopes: its derivative by each parent, at the values of the time it was computed.

    Raises:
        ValueError: if a value, or a slope, is not a finite real number.

    Source: Baydin et al. 2018, section 3.2, <https://arxiv.org/abs/1502.05767>.
    """

    def __init__(self, value, parents=(), slopes=()):
        """Wrap a number; the operations below pass `parents` and `slopes`."""
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError(f"value is {value!r}; allowed is a real number or a Scalar")
        for name, number in (("value", value), *(("slope", slope) for slope in slopes)):
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number}; allowed is a finite number")
        self.value, self.parents, self.slopes = float(value), tuple(parents), tuple(slopes)
        self.gradient = None

    def __repr__(self):
        """Show value and gradient."""
        return f"Scalar({self.value:.6g}, gradient={self.gradient})"

    def __add__(self, other):
        """Return self + other."""
        other = _scalar(other)
        return Scalar(self.value + other.value, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        """Return self * other."""
        other = _scalar(other)
        slopes = (other.value, self.value)
        return Scalar(self.value * other.value, (self, other), slopes)

    def __truediv__(self, other):
        """Return self / other."""
        other = _scalar(other)
        if other.value == 0:
            raise ValueError("divisor is 0; allowed is any other number")
        ratio = self.value / other.value
        return Scalar(ratio, (self, other), (1 / other.value, -ratio / other.value))

    def __pow__(self, exponent):
        """Return self to the power of a number."""
        if not isinstance(exponent, Real) or not math.isfinite(exponent):
            raise ValueError(f"exponent is {exponent!r}; allowed is a finite number, no Scalar")
        exponent = float(exponent)
        if self.value < 0 and not exponent.is_integer():
            raise ValueError(f"base is {self.value}; allowed is 0 or more for power {exponent}")
        try:
            slope = exponent * self.value ** (exponent - 1) if exponent else 0.0
            return Scalar(self.value**exponent, (self,), (slope,))
        except (OverflowError, ZeroDivisionError):
            raise ValueError(f"{self.value} ** {exponent} or its slope is not finite") from None

    def __neg__(self):
        """Return -self."""
        return self * -1

    def __sub__(self, other):
        """Return self - other."""
        return self + -_scalar(other)

    def __rsub__(self, other):
        """Return other - self."""
        return _scalar(other) - self

    def __rtruediv__(self, other):
        """Return other / self."""
        return _scalar(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def tanh(self):
        """Return the hyperbolic tangent."""
        value = math.tanh(self.value)
        return Scalar(value, (self,), (1 - value**2,))

    def relu(self):
        """Return max(x, 0); its slope at 0, where there is none, is 0 as in TensorFlow."""
        return Scalar(max(self.value, 0.0), (self,), (float(self.value > 0),))

    def exp(self):
        """Return e to the power of x."""
        try:
            value = math.exp(self.value)
        except OverflowError:
            raise ValueError(f"exp of {self.value} is not finite") from None
        return Scalar(value, (self,), (value,))

    def log(self):
        """Return the natural logarithm."""
        if self.value <= 0:
            raise ValueError(f"log of {self.value}; allowed is a number above 0")
        return Scalar(math.log(self.value), (self,), (1 / self.value,))

    def graph(self):
        """Return all scalars that this one depends on and itself, each after its parents."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        return order

    def backward(self):
        """Set `gradient` in the whole graph; a second call sets the same again."""
        order = self.graph()
        for node in order:
            node.gradient = 0.0
        self.gradient = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.gradient += node.gradient * slope
        if not all(math.isfinite(node.gradient) for node in order):
            raise ValueError("a gradient is not finite")


def _scalar(value):
    return value if isinstance(value, Scalar) else Scalar(value)
