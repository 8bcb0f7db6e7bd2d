"""Asking for memory ahead of its use, in functions that numba compiles.

Belongs here: the one instruction that numba does not offer. Does not belong here: what is fetched for (see
`line_blocks`).
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_FOR_WRITING, _STAYS, _DATA = 1, 3, 1


def _prefetch(typing: Any, table: Any, row: Any, column: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, arguments[0])
        indices = [
            context.cast(builder, value, given, types.intp)
            for value, given in zip(arguments[1:], signature.args[1:], strict=True)
        ]
        place = cgutils.get_item_pointer(context, builder, kind, array, indices)  # type: ignore[no-untyped-call]
        number = ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, form, "llvm.prefetch.p0"
        )
        options = [number(option) for option in (_FOR_WRITING, _STAYS, _DATA)]
        builder.call(function, [builder.bitcast(place, cgutils.voidptr_t), *options])
        return context.get_dummy_value()

    return types.void(table, row, column), generate


prefetch: Any = intrinsic(_prefetch)
"""`prefetch(table, row, column)` asks for the cache line of `table[row, column]`, which is about to change: LLVM's
`llvm.prefetch`. It changes no value."""
