"""What a model file may name: layers and functions of Keras, functions and operators of TensorFlow. All only compute.

What is not here is refused by its name, whatever it does: operators of files, of the network and of Python, tables,
layers that carry code or load another file. The child process would keep it from doing harm too (edgenet/sandbox).
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KERAS = r"(keras|tf_keras)(\.src)?"
# Modules of Keras that hold what is named below. keras.utils and others can open files and load code.
MODULES = re.compile(
    rf"^{_KERAS}(\.(layers|models|engine|initializers|regularizers|constraints|activations|dtype_policies|"
    r"mixed_precision|backend\.common)(\.\w+)*)?$"
    r"|^tensorflow\.python\.ops\.init_ops(_v2)?$"  # initializers that tf-keras borrows
)
# Each function of keras.ops that stands in a network is a class of its own there.
OPERATION_MODULES = re.compile(rf"^{_KERAS}\.ops\.(core|einops|image|linalg|math|nn|numpy)$")
_WITH_FUNCTIONS = _words(
    "AssociativeScan Cond ForiLoop JVP Map Operation Scan Switch VectorizedMap Vectorize WhileLoop"
)
ACTIVATION_MODULES = re.compile(rf"^({_KERAS}\.activations(\.\w+)*|builtins)$")
ACTIVATIONS = _words("""
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
""")
# Values that Keras writes as objects.
_VALUES = "__tuple__ __tensor__ __keras_tensor__ __numpy__ __bytes__ __slice__ __ellipsis__"
_NETWORKS = "Functional Sequential Model"
_LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention
    AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization
    BatchNormalizationV1 BatchNormalizationV2 Bidirectional CategoryEncoding CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D
    DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention
    GroupedQueryAttention Identity InputLayer InputSpec LSTM LSTMCell LayerNormalization LeakyReLU
    LocallyConnected1D LocallyConnected2D Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization
    RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding
    STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract SyncBatchNormalization
    ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
"""
_INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal VarianceScaling
    Zeros
"""
_PENALTIES = "L1 L1L2 L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm"
_POLICIES = "DTypePolicy DTypePolicyMap FloatDTypePolicy Policy"
CLASSES = _words(f"{_VALUES} {_NETWORKS} {_LAYERS} {_INITIALIZERS} {_PENALTIES} {_POLICIES}")

# Functions of TensorFlow that Keras 2 writes as layers, TFOpLambda and SlicingOpLambda.
_FUNCTION = re.compile(r"^(tf\.)?(math|nn|linalg|__operators__|compat\.v1\.(math|nn)|keras\.activations)\.[a-z_0-9]+$")
_FUNCTIONS = _words("""
    abs add argmax argmin broadcast_to cast clip_by_value compat.v1.depth_to_space compat.v1.gather
    compat.v1.image.resize_bilinear compat.v1.image.resize_nearest_neighbor compat.v1.pad compat.v1.shape
    compat.v1.space_to_depth compat.v1.transpose concat convert_to_tensor cumsum depth_to_space divide einsum equal
    exp expand_dims eye fill floor gather gather_nd greater greater_equal identity image.adjust_contrast
    image.central_crop image.crop_to_bounding_box image.flip_left_right image.grayscale_to_rgb
    image.per_image_standardization image.resize image.rgb_to_grayscale keras.backend.l2_normalize
    keras.backend.mean keras.backend.sum less less_equal logical_and logical_not logical_or matmul maximum minimum
    multiply negative nn.depth_to_space nn.space_to_depth norm not_equal one_hot ones ones_like pad pow range rank
    realdiv reduce_all reduce_any reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape reverse
    roll round rsqrt shape sigmoid sign slice softmax space_to_depth split sqrt square squeeze stack stop_gradient
    strided_slice subtract tanh tensordot tile transpose truediv unstack where zeros zeros_like
""")

# Operators of TensorFlow. What TFLite's converter then lacks, it names itself.
OPERATORS = _words("""
    Abs Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Any ArgMax ArgMin Asin Asinh Atan
    Atan2 Atanh AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpace BatchToSpaceND BiasAdd
    BiasAddV1 Bincount BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize Cast Ceil CheckNumerics
    Cholesky ClipByValue CombinedNonMaxSuppression Complex ComplexAbs Concat ConcatOffset ConcatV2 Conj Const Conv2D
    Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh CropAndResize Cross Cumprod Cumsum CumulativeLogsumexp
    DepthToSpace DepthwiseConv2dNative Dequantize Diag DiagPart DisableCopyOnRead Div DivNoNan Einsum Elu Empty
    EnsureShape Equal Erf Erfc Erfinv Exp ExpandDims Expm1 ExtractImagePatches FFT FFT2D FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod FusedBatchNorm
    FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual HSVToRGB IFFT IFFT2D IRFFT
    IRFFT2D Identity IdentityN If Imag ImageProjectiveTransformV2 ImageProjectiveTransformV3 InTopKV2 Inv Invert
    InvertPermutation IsFinite IsInf IsNan L2Loss LRN LeakyRelu LeftShift Less LessEqual Lgamma LinSpace ListDiff
    Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LowerBound MatMul MatrixBandPart MatrixDeterminant
    MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixInverse
    MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 Max MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax Maximum Mean Min
    Minimum MirrorPad Mod Mul MulNoNan Multinomial Neg NextAfter NoOp NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot OnesLike Pack Pad PadV2
    ParallelConcat PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient Prod Qr
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 RFFT RFFT2D RGBToHSV
    RandomStandardNormal RandomUniform RandomUniformInt Range Rank ReadVariableOp Real RealDiv Reciprocal Relu Relu6
    Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ResourceGather ResourceGatherNd Reverse
    ReverseSequence ReverseV2 RightShift Rint Roll Round Rsqrt ScaleAndTranslate ScatterNd SegmentMax SegmentMean
    SegmentMin SegmentProd SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size Slice Snapshot
    Softmax Softplus Softsign SpaceToBatch SpaceToBatchND SpaceToDepth SparseToDense Split SplitV Sqrt Square
    SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessRandomGetAlg StatelessRandomGetKeyCounter
    StatelessRandomNormalV2 StatelessRandomUniform StatelessRandomUniformV2 StatelessWhile StopGradient StridedSlice
    Sub Sum Svd Tan Tanh TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate
    Tile TopK TopKV2 Transpose TruncateDiv TruncateMod TruncatedNormal Unique UniqueV2 Unpack UnravelIndex
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum UpperBound VarHandleOp
    VarIsInitializedOp Variable VariableShape VariableV2 Where While Xdivy Xlogy ZerosLike
""")
# What else stands before variables are filled: a file's name is put together, and its numbers are read.
RESTORING = OPERATORS | _words("Assign AssignVariableOp RestoreV2 ShardedFilename StringJoin StaticRegexFullMatch")


def is_operation(module: str, name: str) -> bool:
    """Return whether this is a function of keras.ops that only computes and takes no function."""
    return (
        bool(OPERATION_MODULES.match(module))
        and re.match(r"[A-Z]\w*$", name) is not None
        and (name not in _WITH_FUNCTIONS)
    )


def is_function(name: str) -> bool:
    """Return whether a function of TensorFlow, by its public name, only computes."""
    return name in _FUNCTIONS or (_FUNCTION.match(name) is not None and not name.endswith("_loop"))
