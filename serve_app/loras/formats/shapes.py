"""Shape validation: whether the tensors of a module fit it, and each other.

The shapes are those that `changes` describes; r is the rank, out and in are the dimensions of the layer's weight.
"""

from collections.abc import Iterator
from math import prod

from serve_app.loras.formats.header import Tensors
from serve_app.loras.formats.keys import FACTOR_ROLES, Group, Role
from serve_app.loras.refusals import Fault
from serve_app.models.architecture import Shape

_MATRIX = 2  # dimensions


def wrong_shape(group: Group, tensors: Tensors) -> Fault | None:
    """Return the fault of the first tensor that does not fit, with its expected shape; None if all fit.

    `group` has passed `checks.first_fault`: it is complete and has one key for each role.
    """
    return next(_faults(_Shapes(group, tensors)), None)


class _Shapes:
    """The shapes of a group's tensors by their roles."""

    def __init__(self, group: Group, tensors: Tensors) -> None:
        self.module = group.module
        self._group = group
        self._tensors = tensors

    def of(self, role: Role) -> Shape | None:
        """Return the shape of the tensor with that role; None if there is none."""
        key = self._group.key(role)
        return None if key is None else self._tensors[key].shape

    def shape(self, role: Role) -> Shape:
        """Return the shape of the tensor with that role, which is there."""
        return self._tensors[self._group.keys[role][0]].shape

    def fault(self, role: Role, expected: str) -> Fault:
        """Return the fault that the tensor with that role, which is there, has another shape than `expected`."""
        reason = (
            f"a tensor has the wrong shape: expected {expected}, found {list(self.shape(role))}; "
            "it was trained on another model"
        )
        return Fault(reason, self._group.keys[role])


def _faults(shapes: _Shapes) -> Iterator[Fault]:
    yield from _low_rank(shapes)
    yield from _lokr(shapes)
    yield from _alpha(shapes)
    yield from _magnitude(shapes)
    yield from _differences(shapes)


def _low_rank(shapes: _Shapes) -> Iterator[Fault]:
    down = shapes.of(Role.DOWN)
    if down is None:
        return
    out, *wide = shapes.module.shape
    rank = down[0] if down else 0
    if rank == 0 or list(down) != [rank, *wide]:
        yield shapes.fault(Role.DOWN, f"[r, {', '.join(map(str, wide))}] with r at least 1")
    expected = [out, rank, *[1] * (len(wide) - 1)]
    if list(shapes.shape(Role.UP)) != expected:
        yield shapes.fault(Role.UP, str(expected))


def _lokr(shapes: _Shapes) -> Iterator[Fault]:
    """Yield faults of a Kronecker product: kron of [a, b] and [c, d] is [a c, b d]."""
    factors = [found for roles in FACTOR_ROLES if (found := _roles(shapes, *roles))]
    if not factors:
        return
    for roles in factors:
        yield from _factor(shapes, roles)
    (rows1, columns1), (rows2, columns2) = (_product(shapes, roles) for roles in factors)
    out, wide = shapes.module.shape
    if (rows1 * rows2, columns1 * columns2) != (out, wide):
        here = f"[{rows1}, {columns1}] and [{rows2}, {columns2}]"
        yield shapes.fault(factors[1][0], f"two factors of [{out}, {wide}] instead of {here}")
    ranks = {roles[0]: shapes.shape(roles[0])[1] for roles in factors if len(roles) > 1}
    if len(set(ranks.values())) > 1:
        yield shapes.fault(Role.W2_A, f"[{rows2}, {ranks[Role.W1_A]}], the rank of the first factor, for one alpha")


def _roles(shapes: _Shapes, whole: Role, a: Role, b: Role) -> tuple[Role, ...]:
    """Return the roles whose tensors make up a factor of a LoKr; none if the group is no LoKr."""
    if shapes.of(whole) is not None:
        return (whole,)
    return (a, b) if shapes.of(a) is not None else ()


def _factor(shapes: _Shapes, roles: tuple[Role, ...]) -> Iterator[Fault]:
    for role in roles:
        shape = shapes.shape(role)
        if len(shape) != _MATRIX or 0 in shape:
            yield shapes.fault(role, "a matrix that is not empty")
    if len(roles) > 1:
        rank = shapes.shape(roles[0])[1]
        if shapes.shape(roles[1])[0] != rank:
            yield shapes.fault(roles[1], f"[{rank}, n]")


def _product(shapes: _Shapes, roles: tuple[Role, ...]) -> tuple[int, int]:
    return shapes.shape(roles[0])[0], shapes.shape(roles[-1])[1]


def _alpha(shapes: _Shapes) -> Iterator[Fault]:
    shape = shapes.of(Role.ALPHA)
    if shape is not None and prod(shape) != 1:
        yield shapes.fault(Role.ALPHA, "one number, as in [] or [1]")


def _magnitude(shapes: _Shapes) -> Iterator[Fault]:
    magnitude = shapes.of(Role.MAGNITUDE)
    if magnitude is None:
        return
    out, wide = shapes.module.shape
    if magnitude not in ((out,), (out, 1), (1, wide)):
        yield shapes.fault(Role.MAGNITUDE, f"[{out}], [{out}, 1] or [1, {wide}]")


def _differences(shapes: _Shapes) -> Iterator[Fault]:
    for role, expected in (
        (Role.DIFFERENCE, shapes.module.shape),
        (Role.BIAS_DIFFERENCE, shapes.module.shape[:1]),
    ):
        found = shapes.of(role)
        if found is not None and found != expected:
            yield shapes.fault(role, str(list(expected)))
