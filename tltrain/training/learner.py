"""A network in training: its optimizer, its precision, its devices. Uses only Keras operations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.machine import has_tensorflow_wheels
from tltrain.training import checkpoint
from tltrain.training.checkpoint import State

if TYPE_CHECKING:
    from tltrain.training.loop import Stream

#: (b, z, y, x, 1) float32 normalised grey values and (b, z, y, x) uint8 indices of classes.
Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]

#: ``--dtype`` -> Keras' name of it.
PRECISIONS = {"float32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


@dataclass(frozen=True)
class Optimisation:
    """How steps are taken.

    Attributes
    ----------
    steps
        Number of steps: the learning rate rises over the first ones and falls along a cosine to the last.
    learning_rate
        The highest.
    loss
        Name of a loss, one of :data:`tltrain.training.losses.LOSSES`; or a function of truth and
        probabilities. class_weights Index of the network's output -> its weight; 1 for outputs that are not
        named.
    precision
        ``float32``, or ``bf16`` or ``fp16`` for the layers, with weights and sums in float32.
    xla
        Whether XLA compiles the step; None: on accelerators and with JAX only.
    ema
        Momentum of the moving average of the weights, which is validated and kept instead of the last
        weights; 0: none.
    weight_decay, clip
        Weight decay of AdamW; largest norm of all gradients together.
    devices
        Number of GPUs that share each batch; None: all.
    """

    steps: int
    learning_rate: float
    loss: str | Callable[[Any, Any], Any] = "dice-cross-entropy"
    class_weights: tuple[tuple[int, float], ...] = ()
    precision: str = "float32"
    xla: bool | None = None
    ema: float = 0.0
    weight_decay: float = 1e-4
    clip: float = 1.0
    devices: int | None = None


class Learner:
    """A network with its optimizer.

    Parameters
    ----------
    build
        Builds the network with its first weights. It is called after precision and devices are set.
    how
        How steps are taken.

    Raises
    ------
    InputError
        If the precision or the loss is unknown, or the machine has fewer devices.
    """

    def __init__(self, build: Callable[[], Any], how: Optimisation) -> None:
        import keras

        from tltrain.training.losses import loss_of

        if how.precision not in PRECISIONS:
            raise InputError(
                f"`precision` is {how.precision!r}; give one of {', '.join(PRECISIONS)}"
                f"{nearest(how.precision, PRECISIONS)}"
            )
        self._how = how
        self._strategy = _strategy(how.devices)
        # on CPUs, TensorFlow's own kernels are faster than XLA's; JAX has only XLA's
        compiles = _accelerators() > 0 or keras.backend.backend() == "jax"
        with self._scope(), _policy(PRECISIONS[how.precision]):
            self.network = build()
            optimizer = keras.optimizers.AdamW(
                _schedule(how),
                weight_decay=how.weight_decay,
                global_clipnorm=how.clip,
                use_ema=how.ema > 0,
                ema_momentum=how.ema or 0.99,
            )
            loss = how.loss
            if isinstance(loss, str):
                loss = loss_of(loss, self.network.output_shape[-1], dict(how.class_weights))
            self.network.compile(
                optimizer,
                loss=_shared(loss, self.replicas),
                jit_compile=compiles if how.xla is None else how.xla,
            )
            self.network.optimizer.build(self.network.trainable_variables)

    @property
    def steps_taken(self) -> int:
        """Steps of the optimizer, also before an interruption."""
        return int(self.network.optimizer.iterations)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        from keras import ops

        return float(ops.convert_to_numpy(self.network.optimizer.learning_rate))

    @property
    def replicas(self) -> int:
        """Devices that share a batch."""
        return 1 if self._strategy is None else int(self._strategy.num_replicas_in_sync)

    def feed(self, stream: Stream, start: int) -> Iterator[Any]:
        """Yield the batches of a stream from number ``start`` on, as :meth:`step` takes them.

        Raises
        ------
        Exception
            The error that the stream raised, even if ``tf.data`` replaced it by another one.
        """
        heard = _Heard(stream)
        try:
            yield from self._feed(stream, heard, start)
        except Exception:
            if heard.error is not None:
                raise heard.error from None
            raise

    def _feed(self, stream: Stream, heard: _Heard, start: int) -> Iterator[Any]:
        import keras

        from tltrain.data.stream import PatchStream, as_tf_dataset

        if self._strategy is not None:
            dataset = _dataset_of(heard, start)
            return iter(self._strategy.experimental_distribute_dataset(dataset))
        if keras.backend.backend() == "tensorflow" and isinstance(stream, PatchStream):
            return iter(as_tf_dataset(heard, start))
        return heard.batches(start)

    def step(self, batch: Any) -> float:
        """Learn from a batch; return its loss."""
        if self._strategy is None:
            return float(self.network.train_on_batch(*batch))
        with self._scope():
            self.network.reset_metrics()
            self.network.make_train_function()
            logs = self.network.train_function(iter([batch]))
        return float(logs["loss"])

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Any]:
        """Yield the network as it would be saved: with the moving average of its weights, if there is one."""
        if not self._how.ema:
            yield self.network
            return
        trainable = self.network.trainable_variables
        own = checkpoint.values(trainable)
        with self._scope():
            self.network.optimizer.finalize_variable_values(trainable)
        try:
            yield self.network
        finally:
            checkpoint.assign(trainable, own)

    def save_to(self, state: State) -> None:
        """Copy all values into a state."""
        state.variables = checkpoint.values(self.network.variables)
        state.optimizer = checkpoint.values(self.network.optimizer.variables)

    def restore(self, state: State) -> None:
        """Take all values from a state."""
        checkpoint.assign(self.network.variables, state.variables)
        checkpoint.assign(self.network.optimizer.variables, state.optimizer)

    def _scope(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()


class _Heard:
    """A stream that remembers its exception, because TensorFlow's pipelines replace every exception."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    @property
    def batch(self) -> int:
        """Patches of a batch."""
        return int(self._stream.batch)

    @property
    def patch(self) -> int:
        """Edge of a patch in voxels."""
        return int(self._stream.patch)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batch number ``start`` and all that follow."""
        try:
            yield from self._stream.batches(start)
        except Exception as error:
            self.error = error
            raise


def _schedule(how: Optimisation) -> Any:
    """Rise over the first tenth, at most 100 steps; then fall along a cosine (Loshchilov & Hutter, 2017)."""
    import keras

    warm = max(min(how.steps // 10, 100), 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=how.learning_rate / 20,
        warmup_target=how.learning_rate,
        warmup_steps=warm,
        decay_steps=max(how.steps - warm, 1),
        alpha=0.01,
    )


def _shared(loss: Callable[[Any, Any], Any], replicas: int) -> Callable[[Any, Any], Any]:
    """Make losses of parts of a batch add up to their mean: Keras adds gradients, but does not scale them."""
    if replicas == 1:
        return loss
    return lambda truth, probabilities: loss(truth, probabilities) / replicas


def _accelerators() -> int:
    """Count the GPUs that TensorFlow or JAX sees; with PyTorch, XLA is not used."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_logical_devices("GPU"))
    if backend == "jax":
        import jax

        return sum(device.platform != "cpu" for device in jax.devices())
    return 0


def slow_here() -> str:
    """Say that another backend would train much faster; empty if none would, or Keras' backend is another."""
    import keras

    if keras.backend.backend() != "jax" or _accelerators() or not has_tensorflow_wheels():
        return ""
    return (
        "Keras computes with JAX, which takes many times as long as TensorFlow to train on a CPU: "
        "pip install 'template-learning[cpu]'"
    )


def _strategy(devices: int | None) -> Any:
    """Share batches among GPUs (or logical CPUs, where there are no GPUs) if there are several."""
    import keras

    if keras.backend.backend() != "tensorflow":
        if devices is not None and devices > 1:
            raise InputError(
                f"`devices={devices}` needs Keras on TensorFlow, this is on {keras.backend.backend()}"
            )
        return None
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    there = gpus or tf.config.list_logical_devices("CPU")
    wanted = len(gpus) if devices is None else devices
    if devices is not None and not 1 <= devices <= len(there):
        raise InputError(f"`devices` is {devices}; this machine has {len(there)}")
    if wanted < 2:
        return None
    return tf.distribute.MirroredStrategy([device.name for device in there[:wanted]])


def _dataset_of(stream: Stream, start: int) -> Any:
    """Wrap any stream in a ``tf.data.Dataset``; all of its batches have the shape of the first."""
    import tensorflow as tf

    first = next(stream.batches(start))
    signature = tuple(tf.TensorSpec(part.shape, tf.as_dtype(part.dtype)) for part in first)
    batches = tf.data.Dataset.from_generator(lambda: stream.batches(start), output_signature=signature)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(2)


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    """Create layers that compute in another precision."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
