"""The data and trained weights that the pictures of the gallery share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from asking import Problems
from experiments import Images, mnist

from fastloss import optim
from fastloss.arrays import Floats

ROOT = Path(__file__).resolve().parents[1]
#: Of the SVM on pixels of 0 to 255, whose weights are small; it makes the templates smooth.
SVM_L2 = 3e4
SOFTMAX_L2 = 1e-5
PICTURES = Path("bench") / "plots" / "gallery"


@dataclass(frozen=True)
class Effort:
    """Amounts of computation."""

    n_evaluations: int = 1000  # of each rung of the ladder
    n_seeds: int = 10  # of random search
    n_epochs: int = 30
    n_rows: int | None = None  # of MNIST; None: all
    n_steps: int = 300  # of each penalty


@dataclass(frozen=True)
class Studio:
    """Data and trained weights for the pictures, computed once, and the folder for the pictures.

    CIFAR-10 is that of ``problems``. MNIST is not: pictures show more of its rows.
    """

    problems: Problems
    out: Path = ROOT
    effort: Effort = Effort()

    def stem(self, name: str) -> Path:
        return self.out / PICTURES / name

    @property
    def cifar10(self) -> Images:
        return self.problems.cifar10

    @cached_property
    def mnist(self) -> Images:
        return mnist(self.problems.folder, self.effort.n_rows)

    @cached_property
    def svm_on_cifar10(self) -> optim.Result:
        """SVM on CIFAR-10, with a penalty large enough for visible templates."""
        method = optim.SGD(lr=3e-7, schedule=optim.Cosine(self.effort.n_epochs))
        return self._train(self.cifar10, "hinge", SVM_L2, method, self.cifar10.weights(1e-6))

    @cached_property
    def softmax_on_mnist(self) -> dict[str, optim.Result]:
        """Softmax on MNIST, with a weak penalty, by method."""
        schedule = optim.Cosine(self.effort.n_epochs)
        methods: dict[str, optim.Method] = {
            "SGD": optim.SGD(lr=0.1, schedule=schedule),
            "SGD with momentum": optim.SGD(lr=0.1, momentum=0.9, schedule=schedule),
            "Adam": optim.Adam(lr=1e-3, schedule=schedule),
        }
        start = self.mnist.weights(0.0)
        return {
            name: self._train(self.mnist, "softmax", SOFTMAX_L2, method, start)
            for name, method in methods.items()
        }

    def _train(
        self, images: Images, loss: str, l2: float, method: optim.Method, start: Floats
    ) -> optim.Result:
        return optim.minimize(
            images.objective(loss, l2=l2),
            start,
            method,
            max_epochs=self.effort.n_epochs,
            validation=images.accuracy,
        )
