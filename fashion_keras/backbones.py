"""The table of backbones, as `keras.applications` builds them; Keras itself is not imported."""

from typing import Any, NamedTuple


class Architecture(NamedTuple):
    """One kind of backbone.

    Attributes:
        constructor: Its name in `keras.applications`.
        megabytes: Size of its weights with the top, from https://keras.io/api/applications/.
        accuracy: On ImageNet (top 1), from there, too.
        features: Channels of its output.
        scale: Factor for pixels in [0, 255]: one number, or one per channel.
        offset: Added after scaling.
        blocks: Beginnings of layers' names where fine-tuning may well start.
        block: Where it starts by default on a CPU.
        options: More arguments of the constructor.
        parts: Classes that its saved files may contain, by module, beyond those of every file.
    """

    constructor: str
    megabytes: int
    accuracy: float
    features: int
    scale: float | list[float]
    offset: float | list[float]
    blocks: tuple[str, ...]
    block: str
    options: dict[str, Any] = {}
    parts: dict[str, set[str]] = {}


_SYMMETRIC: Any = {"scale": 1 / 127.5, "offset": -1}
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Of ImageNet, in [0, 1].
_STANDARDISED: Any = {
    "scale": [1 / (255 * deviation) for deviation in _DEVIATIONS],
    "offset": [-mean / deviation for mean, deviation in zip(_MEANS, _DEVIATIONS, strict=True)],
}
# Scaling is done by one layer of ours instead.
_RAW = {"include_preprocessing": False}
_STAGES = tuple(f"block{number}a" for number in range(2, 7))
_EXCITED = {"keras.initializers": {"VarianceScaling"}, "keras.layers": {"Multiply", "Reshape"}}

ARCHITECTURES = {
    # Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions".
    "xception": Architecture(
        "Xception",
        megabytes=88,
        accuracy=0.790,
        features=2048,
        **_SYMMETRIC,
        blocks=tuple(f"block{number}" for number in range(2, 15)),
        block="block5",
    ),
    # Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training".
    "efficientnetv2-b0": Architecture(
        "EfficientNetV2B0",
        megabytes=29,
        accuracy=0.787,
        features=1280,
        **_STANDARDISED,
        blocks=_STAGES,
        block="block6a",
        options=_RAW,
        parts=_EXCITED,
    ),
    "efficientnetv2-s": Architecture(
        "EfficientNetV2S",
        megabytes=88,
        accuracy=0.839,
        features=1280,
        scale=1 / 128,
        offset=-1,
        blocks=_STAGES,
        block="block6a",
        options=_RAW,
        parts=_EXCITED,
    ),
    # Liu et al. 2022, "A ConvNet for the 2020s".
    "convnext-tiny": Architecture(
        "ConvNeXtTiny",
        megabytes=109,
        accuracy=0.813,
        features=768,
        **_STANDARDISED,
        blocks=tuple(f"convnext_tiny_stage_{number}" for number in range(4)),
        block="convnext_tiny_stage_3",
        options=_RAW,
        parts={
            "keras": {"Sequential"},
            "keras.layers": {"LayerNormalization"},
            "keras.src.applications.convnext": {"LayerScale"},
            "keras.src.ops.numpy": {"Add"},
        },
    ),
    # He et al. 2016, "Identity Mappings in Deep Residual Networks".
    "resnet50v2": Architecture(
        "ResNet50V2",
        megabytes=98,
        accuracy=0.760,
        features=2048,
        **_SYMMETRIC,
        blocks=tuple(f"conv{number}" for number in range(2, 6)),
        block="conv5",
        parts={"keras.layers": {"ZeroPadding2D"}},
    ),
    # Howard et al. 2019, "Searching for MobileNetV3".
    "mobilenetv3-large": Architecture(
        "MobileNetV3Large",
        megabytes=22,
        accuracy=0.756,
        features=960,
        **_SYMMETRIC,
        blocks=tuple(f"expanded_conv_{number}" for number in (1, 3, 6, 10, 12)),
        block="expanded_conv_12",
        options=_RAW,
        parts={
            "keras.layers": {"Multiply", "ReLU", "ZeroPadding2D"},
            "keras.src.ops.numpy": {"Add", "Multiply"},
        },
    ),
}
