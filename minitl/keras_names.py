"""Names that Keras has: what stands elsewhere here, and what is not there, with the reason.

Asked when a name is not found (`naming.attributes_of`). A name that Keras has is never answered by
a bare AttributeError: it is another place's (`ELSEWHERE`), or the reason why it is not there is an
error, with what to do instead (`NOT_HERE`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from typing import Any

from minitl.naming import complain_about_unknown

# (package, names, the module that has them). A star: any name of that module.
ELSEWHERE = [
    ("ops", "*", "activations"),
    ("ops", "categorical_crossentropy sparse_categorical_crossentropy", "losses.others"),
    (
        "metrics",
        "binary_crossentropy binary_focal_crossentropy categorical_crossentropy hinge huber "
        "categorical_focal_crossentropy categorical_hinge kl_divergence log_cosh "
        "mean_absolute_error mean_absolute_percentage_error mean_squared_error poisson "
        "mean_squared_logarithmic_error sparse_categorical_crossentropy squared_hinge",
        "losses.others",
    ),
    ("backend", "clear_session", "utils"),
]

# (package, names, reason and what to do instead)
NOT_HERE = [
    (
        "layers",
        "AdaptiveAveragePooling3D AdaptiveMaxPooling3D AveragePooling3D AvgPool3D Conv3D "
        "Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution3D Convolution3DTranspose "
        "Cropping3D GlobalAveragePooling3D GlobalAvgPool3D GlobalMaxPool3D GlobalMaxPooling3D "
        "MaxPool3D MaxPooling3D SpatialDropout3D UpSampling3D ZeroPadding3D",
        "minitl has images and sequences, no volumes: apply a network to each slice with "
        "TimeDistributed, and an LSTM or a pooling over the slices",
    ),
    (
        "layers",
        "Conv1DTranspose Conv2DTranspose Convolution1DTranspose Convolution2DTranspose",
        "there are no networks that paint images: UpSampling2D and Conv2D enlarge maps",
    ),
    (
        "layers",
        "DepthwiseConv1D SeparableConv1D SeparableConvolution1D",
        "sequences have Conv1D; images have DepthwiseConv2D and SeparableConv2D",
    ),
    (
        "layers",
        "AdditiveAttention Attention EinsumDense GroupQueryAttention MultiHeadAttention "
        "ReversibleEmbedding RMSNormalization SpectralNormalization GroupNormalization",
        "heads of minitl are Dense, LSTM and GRU: write such a layer of your own from minitl.ops "
        "(einsum, softmax, matmul)",
    ),
    (
        "layers",
        "RNN GRUCell LSTMCell SimpleRNNCell StackedRNNCells SimpleRNN",
        "a recurrence is compiled as a whole: use LSTM or GRU, one after the other for a stack",
    ),
    (
        "layers",
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveMaxPooling1D "
        "AdaptiveMaxPooling2D",
        "use GlobalAveragePooling2D, or AveragePooling2D with the size that fits",
    ),
    (
        "layers",
        "CategoryEncoding Discretization HashedCrossing Hashing IntegerLookup StringLookup "
        "TextVectorization MelSpectrogram STFTSpectrogram",
        "minitl reads images: encode words, categories and sound before",
    ),
    (
        "layers",
        "AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization CutMix Equalization "
        "MaxNumBoundingBoxes MixUp RandAugment RandomColorDegeneration RandomColorJitter "
        "RandomElasticTransform RandomErasing RandomGaussianBlur RandomGrayscale RandomHue "
        "RandomInvert RandomPerspective RandomPosterization RandomSaturation RandomSharpness "
        "RandomShear Solarization",
        "there are RandomFlip, RandomRotation, RandomZoom, RandomTranslation, RandomCrop, "
        "RandomContrast, RandomBrightness and GaussianNoise; others are a function of your own in "
        "the data set's map",
    ),
    (
        "layers",
        "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper",
        "there is no other framework underneath: load published weights by minitl.applications, or "
        "a network of ONNX's",
    ),
    (
        "layers",
        "InputSpec ActivityRegularization AlphaDropout PReLU UpSampling1D deserialize serialize",
        "write it as a layer of your own (docs/extending.md has PReLU); get_config and from_config "
        "describe a layer",
    ),
    (
        "layers",
        "Masking Wrapper Pipeline Dot dot average maximum minimum multiply subtract",
        "steps are not masked: make sequences of one length. A pipeline is a Sequential; Average, "
        "Maximum, Minimum, Multiply, Subtract and minitl.ops merge",
    ),
    (
        "losses",
        "CTC Circle ctc circle",
        "such a loss is a function of your own of (y_true, y_pred), made of minitl.ops",
    ),
    (
        "losses",
        "CategoricalGeneralizedCrossEntropy categorical_generalized_cross_entropy",
        "such a loss is a function of your own of (y_true, y_pred), made of minitl.ops",
    ),
    (
        "metrics",
        "BinaryIoU IoU MeanIoU OneHotIoU OneHotMeanIoU ConcordanceCorrelation PearsonCorrelation "
        "R2Score PrecisionAtRecall RecallAtPrecision SensitivityAtSpecificity "
        "SpecificityAtSensitivity MeanMetricWrapper concordance_correlation pearson_correlation "
        "binary_accuracy categorical_accuracy sparse_categorical_accuracy "
        "sparse_top_k_categorical_accuracy top_k_categorical_accuracy CategoricalHinge Hinge "
        "KLDivergence LogCoshError MeanAbsolutePercentageError MeanSquaredLogarithmicError Poisson "
        "SquaredHinge",
        "a loss's name is a metric ('hinge', 'mape'), a function of two arrays (y_true, y_pred) is "
        "one, and minitl.judging.evaluation has exact curves of all predictions",
    ),
    (
        "losses metrics optimizers initializers regularizers activations optimizers.schedules "
        "constraints",
        "deserialize serialize",
        "`get` takes a name or {'class_name': ..., 'config': {...}}, and get_config makes one",
    ),
    (
        "optimizers",
        "Adadelta Adafactor Adagrad Adamax Ftrl Lamb Lion LossScaleOptimizer MultiOptimizer Muon "
        "Nadam OptimizerMap ScheduleFreeAdamW legacy",
        "there are SGD, Adam, AdamW and RMSprop; a layer's own rate is layer.rate_multiplier, and "
        "another rule is a class over minitl.optimizers.Optimizer with `update`",
    ),
    (
        "callbacks",
        "OrbaxCheckpoint RemoteMonitor SwapEMAWeights TensorBoard",
        "CSVLogger writes the numbers, ModelCheckpoint and BackupAndRestore the states; another is "
        "a class over Callback",
    ),
    (
        "utils",
        "FeatureSpace audio_dataset_from_directory text_dataset_from_directory "
        "timeseries_dataset_from_array bounding_boxes",
        "minitl reads images (image_dataset_from_directory): make arrays of other data with NumPy",
    ),
    (
        "utils",
        "get_file get_source_inputs legacy is_keras_tensor standardize_dtype Config Progbar",
        "take the standard library's urllib, or Python's own tools: these are Keras's inner parts",
    ),
    (
        "utils",
        "deserialize_keras_object get_registered_name get_registered_object serialize_keras_object "
        "custom_object_scope CustomObjectScope get_custom_objects register_keras_serializable",
        "a class of your own is found by load_model(..., custom_objects={...})",
    ),
    (
        "",
        "DTypePolicy FloatDTypePolicy mixed_precision dtype_policies Quantizer quantizers",
        "minitl computes in float32 (or float64: minitl.config.set_floatx); there is no mixed "
        "precision and no quantization",
    ),
    (
        "",
        "distribution device RematScope remat",
        "minitl runs on the cores of one machine: minitl.kernels says how many threads",
    ),
    (
        "",
        "KerasTensor StatelessScope SymbolicScope Function Operation name_scope version",
        "these are Keras's inner parts: build models from Input, and functions of minitl.ops",
    ),
    (
        "optimizers.schedules",
        "CosineDecayRestarts",
        "CosineDecay, and a new fit for a restart; or a function of the step of your own",
    ),
    (
        "utils",
        "disable_interactive_logging enable_interactive_logging is_interactive_logging_enabled "
        "model_to_dot pack_x_y_sample_weight unpack_x_y_sample_weight pad_sequences split_dataset",
        "verbose=0, 1 or 2 says what is printed; data sets are divided by take and skip, and "
        "sequences padded with numpy.pad",
    ),
    ("", "constraints", "weights are not projected after a step: take a regularizer, or clipnorm"),
    ("", "distillation", "teach a student with fit on a teacher's predictions as targets"),
    ("", "visualization", "minitl.judging draws curves, confusion matrices and sheets of images"),
    ("", "wrappers", "minitl.sklearn has FeatureExtractor and SoftmaxHead"),
    ("", "export tree legacy", "these are Keras's inner parts: save and load_model keep models"),
    ("datasets", "boston_housing california_housing imdb reuters", "minitl has sets of images"),
    (
        "applications",
        "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge DenseNet121 "
        "DenseNet169 DenseNet201 EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 "
        "EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0 "
        "EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2L EfficientNetV2M "
        "EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 MobileNetV3Large "
        "MobileNetV3Small NASNetLarge NASNetMobile ResNet101 ResNet101V2 ResNet152 ResNet152V2 "
        "ResNet50V2 Xception convnext densenet efficientnet efficientnet_v2 inception_resnet_v2 "
        "inception_v3 mobilenet mobilenet_v2 mobilenet_v3 nasnet resnet resnet_v2 xception "
        "imagenet_utils",
        "there are VGG16, VGG19 and ResNet50",
    ),
    ("initializers", "STFT STFTInitializer stft", "minitl has images, no sound"),
    (
        "regularizers",
        "OrthogonalRegularizer orthogonal_regularizer Regularizer",
        "there are L1, L2 and L1L2; any function of a weight that gives a penalty will do",
    ),
    (
        "ops",
        "adaptive_average_pool adaptive_max_pool allclose angle argpartition arccos arccosh arcsin "
        "arcsinh arctan2 arctanh array_split associative_scan average_pool bartlett "
        "batch_normalization bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or "
        "bitwise_right_shift bitwise_xor blackman cbrt cdist cholesky cholesky_inverse conj "
        "conjugate conv conv_transpose corrcoef correlate cross ctc_decode ctc_loss cumprod "
        "custom_gradient deg2rad depth_to_space depthwise_conv det diagflat diff divide_no_nan "
        "dot_product_attention dsplit dstack dtype eig eigh empty empty_like erfc erfinv exp2 "
        "extract_sequences fabs fft fft2 fliplr flipud fmax fmin fmod fold fori_loop gcd geomspace "
        "get_item hamming hanning heaviside hsplit hypot i0 ifft2 imag in_top_k inner inv irfft "
        "isneginf isposinf isreal istft jvp kaiser kron layer_normalization lcm ldexp left_shift "
        "logaddexp logaddexp2 logdet lstsq lu_factor matrix_rank max_pool median moments multi_hot "
        "nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin "
        "nanpercentile nanprod nanquantile nanstd nansum nanvar nextafter nonzero percentile pinv "
        "polar psnr ptp qr quantile rad2deg real rearrange rfft right_shift rms_normalization "
        "rot90 saturate_cast scan scatter scatter_update segment_max segment_min segment_prod "
        "segment_sum select separable_conv signbit sinc slice slice_update slogdet solve "
        "solve_triangular space_to_depth stft svd switch trace trapezoid tri trunc unfold unique "
        "unravel_index vander vdot vectorize view view_as_complex view_as_real vsplit while_loop",
        "minitl.ops has what losses, metrics and layers are made of: put it together from these, "
        "or use NumPy where no gradient is needed",
    ),
    (
        "activations",
        "celu glu hard_shrink hard_tanh log_sigmoid mish soft_shrink sparse_plus sparse_sigmoid "
        "sparsemax squareplus tanh_shrink threshold",
        "write it as a function of minitl.ops and give that as activation=",
    ),
    ("preprocessing", "timeseries_dataset_from_array text_dataset_from_directory", "use NumPy"),
    (
        "config",
        "disable_flash_attention dtype_policy enable_flash_attention "
        "enable_unsafe_deserialization is_flash_attention_enabled is_nnx_enabled max_epochs "
        "max_steps_per_epoch set_backend set_dtype_policy set_max_epochs set_max_steps_per_epoch "
        "set_image_data_format backend set_epsilon",
        "minitl has one way to compute, on (N, H, W, C) in floatx",
    ),
    ("random", "beta binomial gamma", "draw with numpy.random.default_rng"),
    ("saving", "KerasFileEditor", "minitl info prints what is in a file"),
]

# (arguments that Keras's functions take and minitl's do not, values that ask for nothing, reason)
ARGUMENTS: list[tuple[str, tuple[Any, ...], str]] = [
    (
        "dtype",
        (None, "float32", "float64"),
        "losses and metrics compute in the dtype of what they are given",
    ),
    (
        "kernel_constraint bias_constraint gamma_constraint beta_constraint recurrent_constraint "
        "embeddings_constraint depthwise_constraint pointwise_constraint",
        (None,),
        "weights are not projected after a step: take a regularizer, or clipnorm",
    ),
    (
        "activity_regularizer",
        (None,),
        "outputs are not penalised: add a term to a loss of your own",
    ),
    ("gamma_regularizer beta_regularizer", (None,), "kernels and biases are penalised"),
    (
        "renorm renorm_clipping renorm_momentum rms_scaling",
        (None, False, 0.99),
        "there is no batch renormalization",
    ),
    (
        "synchronized use_cudnn autocast unroll",
        (None, False, True, "auto"),
        "minitl runs in one process",
    ),
    (
        "aggregation loss_scale_factor gradient_accumulation_steps experimental_name",
        (None, "none", "mean", "only_first_replica", 1),
        "a step is a batch, in float32",
    ),
    (
        "lora_rank lora_alpha quantization_config overwrite_with_gradient",
        (None, False),
        "there are no adapters and no 8-bit weights",
    ),
    ("sparse ragged tensor input_tensor optional", (None, False), "an input is an array"),
    ("noise_shape", (None,), "Dropout drops each number by itself, SpatialDropout2D whole maps"),
    (
        "use_ema ema_momentum ema_overwrite_frequency",
        (None, False, 0.99),
        "there are no averages of weights",
    ),
    ("safe_mode", (None, True), "no code is read from a file"),
    ("layout", (None,), "minitl runs on one machine"),
]


def without_idle_arguments(
    kwargs: dict[str, Any], known: Iterable[str], what: str
) -> dict[str, Any]:
    """The arguments that a function has. Others of Keras's are dropped where they ask for nothing.

    Raises TypeError, with the reason, where they ask for something, or are nobody's.
    """
    left = dict(kwargs)
    for names, idle, reason in ARGUMENTS:
        for name in kwargs.keys() & set(names.split()) - set(known):
            if not any(kwargs[name] is v or kwargs[name] == v for v in idle):
                value = f"{what}() has no argument {name!r} (here {kwargs[name]!r})"
                raise TypeError(f"{value}, which Keras's has: {reason}")
            del left[name]
    complain_about_unknown(left, known, what)
    return left


@functools.cache
def _reasons() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for packages, names, reason in NOT_HERE:
        for package in packages.split() or [""]:
            found |= {(package, name): reason for name in names.split()}
    return found


def answer(package: str, name: str, error: str) -> Any:
    """What stands elsewhere. Raises NotImplementedError, with the reason, for what Keras has and
    minitl has not, and AttributeError for what neither has."""
    room = package.removeprefix("minitl").lstrip(".")
    for place, names, module in ELSEWHERE:
        if place == room and (names == "*" or name in names.split()):
            there = importlib.import_module(f"minitl.{module}")
            with_it = getattr(there, "__dict__", {}).get(name)
            if with_it is not None and not name.startswith("_"):
                return with_it
    reason = _reasons().get((room, name))
    if reason is None:
        raise AttributeError(error)
    where = f"{package}.{name}"
    raise NotImplementedError(f"there is no {where}, which Keras has: {reason}")
