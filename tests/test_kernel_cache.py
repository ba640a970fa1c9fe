"""Test the names of kernels and the files that hold them."""

from __future__ import annotations

import os
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from oracle import LOSSES

from fastloss import kernel_cache
from fastloss.folders import cache_folder

pytest.importorskip("numba")

import numba

# --- fingerprints ---------------------------------------------------------------------------------

BASE = """
import math
UNRELATED = 1.0
FACTOR = 2.0
def unrelated(x):
    return x
def inner(x):
    return math.exp(x)
def helper(x, eps=1e-3):
    return inner(x) + FACTOR * eps
def nested(x):
    return x - 1.0
def make(value):
    def row(scores, label, parameters):
        total = sum([nested(s) for s in scores])
        return helper(scores[label]) * value + total
    return row
row = make(3.0)
"""
CHANGES = {
    "constant in the function": ("* value + total", "* value + total + 1.0"),
    "operator": ("helper(scores[label]) * value", "helper(scores[label]) / value"),
    "helper": ("inner(x) + FACTOR", "inner(x) - FACTOR"),
    "helper of a helper": ("math.exp(x)", "math.exp(2.0 * x)"),
    "another function of a module": ("math.exp(x)", "math.expm1(x)"),
    "global constant": ("FACTOR = 2.0", "FACTOR = 2.5"),
    "default argument": ("eps=1e-3", "eps=1e-4"),
    "value of a closure": ("row = make(3.0)", "row = make(4.0)"),
    "helper of a function inside": ("x - 1.0", "x - 2.0"),
}
NO_CHANGES = {
    "unrelated constant": ("UNRELATED = 1.0", "UNRELATED = 2.0"),
    "unrelated function": ("    return x\n", "    return -x\n"),
    "other lines": ("import math", "\n\n# a comment\nimport math"),
    "nothing": ("", ""),
}


def fingerprint_of(source: str) -> str:
    names: dict = {}
    exec(source, names)
    return kernel_cache.fingerprint(names["row"])


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_fingerprint_changes_with_dependencies(old, new):
    assert BASE.count(old) == 1
    assert fingerprint_of(BASE.replace(old, new)) != fingerprint_of(BASE)


@pytest.mark.parametrize(("old", "new"), NO_CHANGES.values(), ids=NO_CHANGES)
def test_fingerprint_ignores_unrelated_code(old, new):
    assert fingerprint_of(BASE.replace(old, new, 1)) == fingerprint_of(BASE)


def test_fingerprint_covers_compiled_helpers():
    def with_helper(body: str) -> str:
        jitted = f"import numba\n@numba.njit\ndef helper(x):\n    return {body}\n"
        return fingerprint_of(f"{jitted}def row(s, label, p):\n    return helper(s[label])\n")

    assert with_helper("x + 1") == with_helper("x + 1")
    assert with_helper("x + 1") != with_helper("x + 2")


def test_fingerprints_of_losses_differ():
    blocks = {loss.block for loss in LOSSES.values()}
    assert len({kernel_cache.fingerprint(block) for block in blocks}) == len(blocks)


def test_fingerprints_of_long_arrays_differ():
    one, other = np.zeros(5000), np.zeros(5000)
    other[2000] = 1
    assert repr(one) == repr(other)
    assert kernel_cache.fingerprint(one) != kernel_cache.fingerprint(other)


NAME = """
import sys
from fastloss import kernel_cache
print(kernel_cache.kernel_name("kernel"))
assert "numba" not in sys.modules
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"},
        {"NUMBA_OPT": "1"},
        {"NUMBA_BOUNDSCHECK": "1"},
    ],
    ids=["CPU", "optimisation", "bounds"],
)
def test_name_changes_with_the_settings_of_numba(environment, run_python):
    assert run_python(NAME, **environment) != run_python(NAME)


CPUINFO = """
from pathlib import Path
Path.read_text = lambda path, **options: {text!r}
"""


def test_name_changes_with_the_configuration_file_of_numba(tmp_path, run_python):
    code = f"import os; os.chdir({str(tmp_path)!r})" + NAME
    before = run_python(code)
    (tmp_path / ".numba_config.yaml").write_text("opt: 0\n")
    assert run_python(code) != before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/cpuinfo")
def test_name_changes_with_the_cpu(run_python):
    cpu = "model\t: 143\ncpu MHz\t: 2100\nflags\t: fpu avx512f\n\nmodel\t: 143\n"
    others = [cpu, cpu.replace("2100", "2700"), cpu.replace("avx512f", "avx2")]
    names = [run_python(CPUINFO.format(text=text) + NAME) for text in others]
    assert names[0] == names[1] != names[2]


def test_name_is_an_identifier():
    assert kernel_cache.kernel_name("a.<locals>.<lambda>" + "x" * 500).isidentifier()


def test_name_covers_the_sources_in_an_archive_too(tmp_path, run_python):
    package = Path(kernel_cache.__file__).parent
    names = []
    for change in (b"", b"", b"changed = 1"):
        archive = tmp_path / "packages.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in package.rglob("*.py"):
                is_changed = path.name == "wide.py"
                content = path.read_bytes() + (change if is_changed else b"")
                file.writestr(str(path.relative_to(package.parent)), content)
        names.append(run_python(f"import sys; sys.path.insert(0, {str(archive)!r})" + NAME))
    assert names[0] == names[1] != names[2]


def test_name_without_the_metadata_of_packages(run_python):
    """An archive of all packages has no metadata."""
    code = """
    import importlib.metadata
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)
    importlib.metadata.version = version
    from fastloss import kernel_cache
    assert kernel_cache.kernel_name("kernel")
    """
    run_python(code)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return a folder for kernels, which does not exist yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def twice(x):
    return 2 * x


def compile_twice() -> int:
    """Compile or load `twice`; return the number of cache hits."""
    name = kernel_cache.kernel_name("twice", twice)
    kernel = kernel_cache.compile_cached(twice, name, (numba.int64,), numba.njit)
    assert kernel(21) == 42
    return sum(kernel.stats.cache_hits.values())


def file_of_twice() -> Path:
    (path,) = kernel_cache.cached_kernels()
    return path


def test_kernel_is_loaded_the_second_time(folder):
    name = kernel_cache.kernel_name("twice", twice)
    assert not kernel_cache.is_cached(name)
    assert compile_twice() == 0
    assert kernel_cache.is_cached(name)
    assert compile_twice() == 1
    assert twice.__name__ == "twice"
    assert list(folder.iterdir()) == [file_of_twice()]  # no draft is left


@pytest.mark.parametrize("keep", [0, 10, 32, 1000])
def test_truncated_file_is_compiled_again(keep, folder):
    compile_twice()
    path = file_of_twice()
    path.write_bytes(path.read_bytes()[:keep])
    assert not kernel_cache.is_cached(kernel_cache.kernel_name("twice", twice))
    assert [compile_twice(), compile_twice()] == [0, 1]


def test_damaged_file_is_compiled_again(folder):
    compile_twice()
    stored = bytearray(file_of_twice().read_bytes())
    stored[len(stored) // 2] ^= 1
    file_of_twice().write_bytes(stored)
    assert [compile_twice(), compile_twice()] == [0, 1]


def test_file_of_another_numba_is_compiled_again(folder, monkeypatch):
    compile_twice()

    def rebuild(*_):
        raise TypeError("of another Numba")

    with monkeypatch.context() as patch:
        patch.setattr(numba.core.compiler.CompileResult, "_rebuild", rebuild)
        assert compile_twice() == 0
    assert compile_twice() == 1


def test_folder_in_place_of_the_file_is_ignored(folder):
    compile_twice()
    path = file_of_twice()
    path.unlink()
    path.mkdir()
    assert [compile_twice(), compile_twice()] == [0, 0]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX")
@pytest.mark.parametrize("kind", ["of another user", "that anybody can write"])
def test_untrusted_file_is_not_loaded(kind, folder, monkeypatch):
    """Loading a kernel runs code from its file."""
    compile_twice()
    if kind == "that anybody can write":
        file_of_twice().chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(file_of_twice(), 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not kernel_cache.is_cached(kernel_cache.kernel_name("twice", twice))
    assert compile_twice() == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX")
def test_new_folder_is_private(folder):
    compile_twice()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_only_kernels_unused_for_a_month_are_removed(folder, run_python):
    folder.mkdir()
    ages = {"fastloss.old_1.nbc": 31, "fastloss.new_1.nbc": 29, "theirs.old.nbc": 31}
    for name, days in ages.items():
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    run_python(CALL)
    left = {path.name for path in folder.iterdir()}
    assert ages.keys() - left == {"fastloss.old_1.nbc"}


def test_loading_a_kernel_counts_as_use(folder):
    compile_twice()
    os.utime(file_of_twice(), (1.0, 1.0))
    assert compile_twice() == 1
    assert time.time() - file_of_twice().stat().st_mtime < 600


CALL = """
import numpy as np
import fastloss
from fastloss.kernels.loss_entry import loss_kernel
from fastloss.kernels.narrow import narrow_kernel

X, y = np.ones((40, 2)), np.arange(40) % 3
loss, dW = fastloss.loss_and_grad(np.zeros((2, 3)), X, y, backend="fused")
np.testing.assert_allclose(loss, np.log(3))
double = np.dtype("f8")
kernel = narrow_kernel(double, double)
print(+loss_kernel(fastloss.Softmax(), double).is_loaded, +kernel.is_loaded)
"""


def test_disk_cache(tmp_path: Path, run_python):
    def call() -> str:
        # A new hash seed each time, as in separate processes of a user.
        return run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path), PYTHONHASHSEED="random")

    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    assert call() == "0 0\n"
    first = files()
    assert len(first) == 2  # the loss, and the narrow kernel
    assert call() == "1 1\n"
    assert files() == first


@pytest.mark.parametrize("n", [2, pytest.param(8, marks=pytest.mark.deep)])
def test_concurrent_processes_share_the_cache(n, tmp_path: Path, run_python):
    with ThreadPoolExecutor(n) as pool:
        calls = [pool.submit(run_python, CALL, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(n)]
        for call in calls:
            assert call.result()
    assert run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path)) == "1 1\n"


FULL_DISK = """
from pathlib import Path

def write_bytes(path, content):
    with open(path, "wb") as file:
        file.write(content[:100])
    raise OSError(28, "No space left on device")

Path.write_bytes = write_bytes
"""


NO_WARNING = "import warnings; warnings.simplefilter('ignore', RuntimeWarning)\n"


@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "FASTLOSS_CACHE_DIR"])
def test_warning_names_the_variable_of_an_impossible_folder(variable, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "folder"))
    with pytest.warns(RuntimeWarning, match=f"{variable} must be a folder .*Not a directory"):
        assert compile_twice() == 0
    assert compile_twice() == 0  # without another warning


@pytest.mark.deep
def test_full_disk_keeps_no_kernel(tmp_path: Path, run_python):
    assert run_python(FULL_DISK + CALL, NUMBA_CACHE_DIR=str(tmp_path)) == "0 0\n"
    assert not list(tmp_path.iterdir())


COMPARE = """
import numpy as np
import fastloss

rng = np.random.default_rng(0)
for loss, dtype in {kernels}:
    X, y = rng.standard_normal((50, 7)).astype(dtype), np.arange(50) % 5
    for n_classes in (5, 105):  # through the narrow kernel, and through the wide one
        W = rng.standard_normal((7, n_classes)).astype(dtype)
        call = W, X, y, loss
        actual = fastloss.loss_and_grad(*call, backend="fused")
        expected = fastloss.loss_and_grad(*call, backend="naive")
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(actual[1], expected[1], atol=1e-5)
"""


@pytest.mark.deep
def test_kernels_cached_by_different_processes_do_not_mix(tmp_path: Path, run_python):
    """Each kernel is compiled first in its own process; then one process loads all."""
    kernels = [("softmax", "float64"), ("crammer_singer", "float64"), ("softmax", "float32")]
    for some in ([kernels[0]], [kernels[1]], [kernels[2]], kernels, kernels[::-1]):
        run_python(COMPARE.format(kernels=some), NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.deep
def test_impossible_folder_keeps_no_kernel(tmp_path: Path, run_python):
    file = tmp_path / "file"
    file.touch()
    assert run_python(NO_WARNING + CALL, NUMBA_CACHE_DIR=str(file / "folder")) == "0 0\n"
    assert list(tmp_path.rglob("*")) == [file]


NO_HOME = """
import os, pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
for name in ("HOME", "XDG_CACHE_HOME", "FASTLOSS_CACHE_DIR", "NUMBA_CACHE_DIR"):
    os.environ.pop(name, None)
"""


@pytest.mark.deep
@pytest.mark.skipif(os.name != "posix", reason="POSIX")
def test_kernels_without_home_directory(run_python):
    rest = """
from fastloss.backends import cost_model
assert fastloss.loss_and_grad(np.zeros((2, 3)), X, y)[0] - loss < 1e-12
assert cost_model.current() is cost_model.default()
"""
    assert run_python(NO_HOME + CALL + rest) == "0 0\n"


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert kernel_cache.folder() == tmp_path
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    assert kernel_cache.folder() == cache_folder() / "kernels"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG")
@pytest.mark.parametrize(
    ("home", "xdg", "expected"),
    [
        ("/home/me", "/cache", "/cache/fastloss"),
        ("/home/me", "", "/home/me/.cache/fastloss"),
        ("/home/me", "relative", "/home/me/.cache/fastloss"),
        ("relative", "", None),
    ],
)
def test_cache_folder_is_independent_of_the_working_directory(home, xdg, expected, monkeypatch):
    for name, value in {"HOME": home, "XDG_CACHE_HOME": xdg, "FASTLOSS_CACHE_DIR": ""}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == (None if expected is None else Path(expected))


@pytest.mark.deep
def test_machines_with_a_shared_folder_keep_their_kernels(tmp_path: Path, run_python):
    """Two kinds of CPU share one home directory."""
    run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path))
    here = set(tmp_path.iterdir())
    other = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}
    run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path), **other)
    assert len(set(tmp_path.iterdir())) == 2 * len(here)
    assert run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path)) == "1 1\n"


@pytest.mark.parametrize("setting", ["variable", "config"])
def test_disabled_jit_compiles_nothing(setting, run_python):
    code = """
import numpy as np, fastloss
X, y, W = np.ones((6, 2)), [0, 1, 2, 0, 1, 2], np.zeros((2, 3))
assert "fused" not in fastloss.available_backends()
fastloss.loss_and_grad(W, X, y)
try:
    fastloss.loss_and_grad(W, X, y, backend="fused")
except RuntimeError as error:
    print(error)
"""
    if setting == "config":
        output = run_python("import numba\nnumba.config.DISABLE_JIT = 1\n" + code)
    else:
        output = run_python(code, NUMBA_DISABLE_JIT="1")
    assert output == "backend 'fused' cannot run: NUMBA_DISABLE_JIT is set\n"
