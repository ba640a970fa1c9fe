"""What Numba compiles for the fused backend: templates, and what binds them to a type.

(a) Why templates. A kernel is a plain Python function that refers to names (``transpose``,
    ``LANES``) which its module leaves open. `compile.bind` copies the function and fills them in
    for a type and this CPU. A closure would do the same, but Numba never finds a closure in its
    cache again. Passing functions as arguments would compile a kernel for each combination.

(b) Why addresses. Explicit vectors (`simd`, `amx`) are LLVM instructions, and LLVM knows addresses
    and strides in bytes, not arrays. An array of one layout more would be one signature more, and
    each costs a second or two to compile.

(c) Why a loss is apart. A loss is compiled by itself (`loss_entry`) and called through its address,
    so a kernel is compiled once a type, not once a loss, and no loss knows of blocks or threads.

(d) Why names have fingerprints. A name tells Numba, the linker and the disk cache which kernel is
    meant; it must therefore change when anything that the kernel is made of does. See
    `fastloss.kernel_cache`.

(e) Why helpers are inlined before types are inferred. As functions of their own LLVM would optimise
    them twice. `rows.aligned`, which is called again and again, is the exception.

(f) Which modules import Numba. `simd` and `amx` do, and are imported when the first kernel is
    compiled. The others do not: names of kernels are known without Numba.

Templates: `narrow` (few classes), `wide` and `wide_amx` (many), `strips` (scores that are there
already), and `rows`, which these share; each with what binds it. Problems laid out for them:
`narrow_problem` and `wide_problem`.
"""
