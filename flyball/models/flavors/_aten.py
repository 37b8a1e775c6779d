"""The operations of PyTorch that a program may carry out: names in its namespace aten, without their overloads.

None of them reads a file, shows memory that was not written, skips the check of an index or leaves the process.
"""

from __future__ import annotations

__all__ = ["ALLOWED", "WITHIN"]

_PURE = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_scalar _assert_tensor_metadata _cdist_forward _log_softmax
_native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view abs acos acosh adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add addbmm addcdiv addcmul addmm addmv
alias all alpha_dropout amax amin angle any arange argmax argmin argsort asin asinh as_strided atan atan2 atanh
avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_to
bucketize cat cdist ceil celu chunk clamp clamp_max clamp_min clone col2im concat constant_pad_nd contiguous conv1d
conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cosh cosine_similarity cumprod
cumsum detach diag diag_embed diagonal diff div dot dropout einsum elu embedding embedding_bag eq erf erfc erfinv exp
exp2 expand expand_as expm1 eye feature_dropout flatten flip floor floor_divide fmax fmin fmod frac full full_like
gather ge gelu glu grid_sampler group_norm gru gt hardsigmoid hardswish hardtanh hypot im2col index index_add
index_copy index_put index_select instance_norm isfinite isin isinf isnan item kthvalue layer_norm le leaky_relu lerp
lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp
logcumsumexp logical_and logical_not logical_or logical_xor logsumexp lstm lt masked_fill masked_scatter masked_select
matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean median meshgrid min minimum mish mm
movedim mul mv nan_to_num narrow native_group_norm native_layer_norm ne neg new_full new_ones new_zeros nonzero norm
normalize numpy_T one_hot ones ones_like outer pad permute pixel_shuffle pixel_unshuffle polar pow prelu prod quantile
reciprocal reflection_pad1d reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad1d
replication_pad2d reshape reshape_as rms_norm rnn_relu rnn_tanh roll rot90 round rsqrt rsub scalar_tensor
scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select select_scatter selu sigmoid sign
silu sin sinh slice slice_scatter softmax softplus softshrink sort split split_with_sizes sqrt square squeeze stack
std std_mean sub sum swapaxes sym_constrain_range_for_size sym_numel sym_size sym_stride t take_along_dim tan tanh
tanhshrink tensor_split threshold tile to topk transpose tril triu true_divide trunc type_as unbind unflatten unfold
unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest3d upsample_trilinear3d var var_mean view view_as where zero zeros zeros_like
"""
_IN_PLACE = """
add_ addcmul_ clamp_ clamp_min_ copy_ div_ dropout_ elu_ exp_ fill_ hardsigmoid_ hardswish_ hardtanh_ index_put_
leaky_relu_ log_ masked_fill_ mul_ neg_ relu_ relu6_ sigmoid_ silu_ sqrt_ squeeze_ sub_ tanh_ transpose_ unsqueeze_
zero_
"""

ALLOWED = frozenset(_PURE.split())
WITHIN = frozenset(_IN_PLACE.split())  # of these only on a tensor that the program has made itself
