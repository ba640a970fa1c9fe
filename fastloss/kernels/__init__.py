"""Compile the kernels of the fused backend: templates, and functions that bind them to a type.

(a) Templates. A kernel is a plain Python function that refers to names (``transpose``, ``LANES``)
    which its module leaves open. `compile.bind` copies the function and fills in these names for a
    type and this CPU. Numba would not find a closure in its cache again. Functions passed as
    arguments would compile a kernel for each combination.

(b) Addresses. Explicit vectors (`simd`, `amx`) are LLVM instructions, and LLVM knows addresses and
    strides in bytes, not arrays. Each further array layout would need another signature, which
    takes one or two seconds to compile.

(c) Separate losses. A loss is compiled by itself (`loss_entry`) and called through its address.
    A kernel is therefore compiled once a type, not once a loss, and losses ignore blocks and
    threads.

(d) Fingerprints in names. A name identifies a kernel to Numba, the linker and the disk cache. The
    name must therefore change with everything that the kernel is made of. See
    `fastloss.kernel_cache`.

(e) Helpers. A helper is typed by itself, because the time of Numba's passes grows faster than the
    length of a function. Its LLVM code becomes part of the kernel and is optimised with it.

(f) Imports of Numba. Only `simd` and `amx` import it, when a kernel is compiled. Names of kernels
    are known without Numba, and `native` loads kernels from the cache without it.

Templates, each with the functions that bind it: `narrow` (few classes), `few_rows` (of many
features), `narrow_products` (of these two), `wide` and `wide_amx` (many classes), `strips` (given
scores), and `rows` (shared by these). `narrow_problem`, `few_rows_problem` and `wide_problem` lay
problems out for them.
"""
