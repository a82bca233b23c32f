"""Which of Keras's tests apply to minitl, and what an outcome is called.

A file is run if minitl has what it tests. A test in it does not apply if its source speaks of
something that minitl does not claim (`NOT_HERE`, by what the test says, never by how it ended) or
if Keras skips it itself. Of a test that fails the error decides: raised by a `raise` of minitl's
own it is a refusal in words; an AssertionError is a real difference; anything else is bare.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

# Under keras/src: folder, and the beginnings of its `..._test.py` that are run; a star is all.
FILES = {
    "activations": "*",
    "initializers": "*",
    "regularizers": "*",
    "callbacks": "backup_and_restore callback csv_logger early_stopping lambda_callback "
    "learning_rate_scheduler model_checkpoint monitor_callback "
    "reduce_lr_on_plateau terminate_on_nan",
    "layers/activations": "*",
    "layers": "layer",
    "layers/merging": "*",
    "layers/convolutional": "conv depthwise_conv separable_conv",
    "layers/core": "dense embedding identity input_layer lambda_layer masking wrapper",
    "layers/normalization": "batch_normalization layer_normalization unit_normalization",
    "layers/pooling": "average_pooling global_average_pooling global_max_pooling max_pooling",
    "layers/preprocessing": "normalization rescaling pipeline",
    "layers/preprocessing/image_preprocessing": "center_crop random_brightness random_contrast "
    "random_crop random_flip random_rotation random_translation random_zoom resizing",
    "layers/regularization": "*",
    "layers/reshaping": "cropping1d cropping2d flatten permute repeat_vector reshape "
    "up_sampling2d zero_padding1d zero_padding2d",
    "layers/rnn": "bidirectional gru lstm time_distributed",
    "losses": "*",
    "metrics": "*",
    "models": "cloning functional model sequential",
    "optimizers": "adam adamw sgd optimizer rmsprop",
    "optimizers/schedules": "*",
    "saving": "object_registration saving_api saving_lib",
    "legacy/saving": "legacy_h5_format",
    "trainers": "compile_utils",  # trainer_test mixes a backend's inner Trainer into a layer
    "trainers/data_adapters": "py_dataset_adapter",
    "utils": "image_dataset_utils image_utils numerical_utils rng_utils "
    "sequence_utils summary_utils",
    "applications": "imagenet_utils",
}

# What a test's source says if it cannot apply, and why.
NOT_HERE = {
    "quantization and adapters": r"quantiz|lora|int8|int4|float8|fp8|gptq|GPTQ|awq|AWQ"
    r"|overwrite_with_gradient",
    "mixed precision": r"mixed_|dtype_polic|DTypePolicy|autocast|compute_dtype|variable_dtype"
    r"|float16|LossScale|loss_scale",
    "another backend": r"\btf\.|\btf_data\b|\bjax\b|\btorch\b|\bgrain\b|tensorflow|jit_compile"
    r"|run_eagerly",
    "sparse and ragged tensors": r"sparse=|ragged|SparseTensor|assertSparse|_sparse\b"
    r"|sparse_tensor",
    "several devices, other processes": r"distribut|strategy|backend\.device|use_multiprocessing",
    "symbolic internals": r"compute_output_spec|any_symbolic|StatelessScope|stateless|SeedGenerator"
    r"|seed_generator|remat|symbolic_scope|name_scope|_keras_history|standardize_shape|\bNode\b"
    r"|make_node|Operation\b|\bFunction\(|AutocastScope|saving_lib\.|serialization_lib\.",
    "inner functions of Keras": r"GLOBAL_CUSTOM_NAMES|obtain_input_shape",
    "private names of Keras": r"(?<![\w.])(?!self\b|cls\b|super\b)[A-Za-z]\w*(?:\(\)|\[\w+\])?"
    r"(?:\.\w+)*\._[a-z]\w*",
    "layers of volumes, transposed convolutions and such": r"\w+3D\b|Conv\dDTranspose"
    r"|ConvLSTM|\bEinsumDense|MultiHeadAttention|FeatureSpace|TextVectorization|StringLookup"
    r"|SpectralNormalization|GroupNormalization|StackedRNNCells|RNNCell|layers\.RNN\b",
    "averages and constraints of weights": r"use_ema|ema_|_ema\b|constraint",
    "remote files and services": r"gs://|s3://|gcs|remote|tensorboard|orbax|wandb|hf://",
    "bounding boxes and segmentation masks": r"bounding_box|segmentation_mask|bboxes",
}


def does_not_apply(source: str) -> str:
    """Why a test with this source cannot apply to minitl; '' if it can."""
    return next((why for why, words in NOT_HERE.items() if re.search(words, source)), "")


def files(checkout: Path) -> Iterator[Path]:
    for folder, names in FILES.items():
        for name in names.split():
            yield from sorted((checkout / "keras" / "src" / folder).glob(f"{name}_test.py"))


def in_words(error: BaseException) -> bool:
    """Whether minitl raised this with words of its own, rather than Python or NumPy for it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    last = frames[-1]
    own = "/minitl/" in last.filename and "/keras/src/" not in last.filename
    if own and last.name in ("find", "answer") and isinstance(error, AttributeError):
        return False  # a module's plain AttributeError
    return own and (last.line or "").lstrip().startswith(("raise", "complain", "error"))


def outcome(error: BaseException | None, other_words: bool) -> str:
    if error is None:
        return "other words" if other_words else "passed"
    if in_words(error):
        return "refused"
    failed = isinstance(error, AssertionError) or type(error).__name__ == "Failed"  # by pytest
    return "different" if failed else "bare"
