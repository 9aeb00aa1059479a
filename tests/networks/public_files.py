"""Checkpoints as the public projects write them, with random tensors: names, shapes and wrappers by their sources."""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, Tensor]


def tensor(*shape: int) -> Tensor:
    return torch.randn(shape)


def norm(name: str, dim: int) -> State:
    return {f"{name}.weight": tensor(dim), f"{name}.bias": tensor(dim)}


def linear(name: str, dim_in: int, dim_out: int, *, bias: bool = True) -> State:
    return {f"{name}.weight": tensor(dim_out, dim_in)} | ({f"{name}.bias": tensor(dim_out)} if bias else {})


def batch_norm(name: str, dim: int) -> State:
    statistics = {f"{name}.running_mean": tensor(dim), f"{name}.running_var": torch.rand(dim) + 0.5}
    return norm(name, dim) | statistics | {f"{name}.num_batches_tracked": torch.tensor(7)}


def conv(name: str, cin: int, cout: int, kernel: tuple[int, ...], *, bias: bool = False) -> State:
    return {f"{name}.weight": tensor(cout, cin, *kernel)} | ({f"{name}.bias": tensor(cout)} if bias else {})


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def swin(embed: int, depths: tuple[int, ...], heads: tuple[int, ...], window: tuple[int, ...]) -> State:
    """Video Swin for a window of three axes, image Swin for one of two."""
    patch = (2, 4, 4) if len(window) == 3 else (4, 4)
    rows = positions = 1
    for length in window:
        rows *= 2 * length - 1
        positions *= length
    state = conv("patch_embed.proj", 3, embed, patch, bias=True) | norm("patch_embed.norm", embed)
    for i, (depth, h) in enumerate(zip(depths, heads, strict=True)):
        dim = embed * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            state |= norm(f"{block}.norm1", dim) | norm(f"{block}.norm2", dim)
            state[f"{block}.attn.relative_position_bias_table"] = tensor(rows, h)
            state[f"{block}.attn.relative_position_index"] = torch.zeros(positions, positions, dtype=torch.long)
            if len(window) == 2 and j % 2 == 1:
                state[f"{block}.attn_mask"] = tensor(4, positions, positions)
            state |= linear(f"{block}.attn.qkv", dim, 3 * dim) | linear(f"{block}.attn.proj", dim, dim)
            state |= linear(f"{block}.mlp.fc1", dim, 4 * dim) | linear(f"{block}.mlp.fc2", 4 * dim, dim)
        if i < len(depths) - 1:
            merge = f"layers.{i}.downsample"
            state |= linear(f"{merge}.reduction", 4 * dim, 2 * dim, bias=False) | norm(f"{merge}.norm", 4 * dim)
    return state | norm("norm", embed * 2 ** (len(depths) - 1))


def bert(width: int, layers: int, ffn: int, vocab: int, positions: int) -> State:
    """``bert.*`` and ``cls.*`` of BertForPreTraining without the decoder, which is tied."""
    state = {
        "bert.embeddings.word_embeddings.weight": tensor(vocab, width),
        "bert.embeddings.position_embeddings.weight": tensor(positions, width),
        "bert.embeddings.token_type_embeddings.weight": tensor(2, width),
        "bert.embeddings.position_ids": torch.arange(positions)[None],
        "cls.predictions.bias": tensor(vocab),
    } | norm("bert.embeddings.LayerNorm", width)
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            state |= linear(f"{layer}.attention.self.{name}", width, width)
        state |= linear(f"{layer}.attention.output.dense", width, width)
        state |= norm(f"{layer}.attention.output.LayerNorm", width) | norm(f"{layer}.output.LayerNorm", width)
        state |= linear(f"{layer}.intermediate.dense", width, ffn) | linear(f"{layer}.output.dense", ffn, width)
    state |= linear("bert.pooler.dense", width, width)
    transform = "cls.predictions.transform"
    return state | linear(f"{transform}.dense", width, width) | norm(f"{transform}.LayerNorm", width)


def swinbert(visual: State, visual_dim: int, text: State, width: int, *, image_width: int, sparse: int = 0) -> State:
    text = text | linear("bert.img_embedding", image_width, width)
    vocab = text["cls.predictions.bias"].shape[0]
    text |= linear("cls.predictions.decoder", width, vocab, bias=False) | linear("cls_img_feat.dense", width, 2048)
    state = (
        prefixed("swin.backbone.", visual) | linear("fc", visual_dim, image_width) | prefixed("trans_encoder.", text)
    )
    return state | ({"learn_vid_att.weight": tensor(sparse * sparse, 1)} if sparse else {})


def resnet(depths: tuple[int, ...], width: int, classes: int = 0) -> State:
    state = conv("conv1", 3, width, (7, 7)) | batch_norm("bn1", width)
    cin = width
    for i, depth in enumerate(depths):
        w = width * 2**i
        for j in range(depth):
            block = f"layer{i + 1}.{j}"
            for k, (a, b, kernel) in enumerate([(cin, w, 1), (w, w, 3), (w, 4 * w, 1)], 1):
                state |= conv(f"{block}.conv{k}", a, b, (kernel, kernel)) | batch_norm(f"{block}.bn{k}", b)
            if j == 0:
                state |= conv(f"{block}.downsample.0", cin, 4 * w, (1, 1)) | batch_norm(f"{block}.downsample.1", 4 * w)
            cin = 4 * w
    return state | (linear("fc", cin, classes) if classes else {})


def anfl(trunk: State, trunk_dim: int, dim: int, nodes: int, sides: int) -> State:
    """OpenGraphAU with sides, a model of ME-GraphAU without."""
    linears, centres = ("main_class_linears", "main_sc") if sides else ("class_linears", "sc")
    state = prefixed("backbone.", trunk)
    state |= linear("global_linear.fc", trunk_dim, dim) | batch_norm("global_linear.bn", dim)
    for i in range(nodes):
        state |= linear(f"head.{linears}.{i}.fc", dim, dim) | batch_norm(f"head.{linears}.{i}.bn", dim)
    state |= linear("head.gnn.U", dim, dim) | linear("head.gnn.V", dim, dim) | batch_norm("head.gnn.bnv", nodes)
    state[f"head.{centres}"] = tensor(nodes, dim)
    if sides:
        state["head.sub_sc"] = tensor(sides, dim)
    return prefixed("module.", state)


def ddamfn(classes: int) -> State:
    """All 1,190 tensors of the published files."""

    def block(name: str, cin: int, cout: int, splits: tuple[int, ...]) -> State:
        wide = sum(splits)
        hidden = max(8, wide // 32)
        state = conv(f"{name}.conv.conv", cin, wide, (1, 1)) | batch_norm(f"{name}.conv.bn", wide)
        state[f"{name}.conv.prelu.weight"] = tensor(wide)
        for i, (channels, kernel) in enumerate(zip(splits, (3, 5, 7, 9), strict=False)):
            state |= conv(f"{name}.conv_dw.mixed_depthwise_conv.{i}", 1, channels, (kernel, kernel))
        state |= batch_norm(f"{name}.conv_dw.bn", wide) | {f"{name}.conv_dw.prelu.weight": tensor(wide)}
        state |= conv(f"{name}.CA.conv1", wide, hidden, (1, 1), bias=True) | batch_norm(f"{name}.CA.bn1", hidden)
        state |= conv(f"{name}.CA.conv2", hidden, wide, (1, 1), bias=True)
        state |= conv(f"{name}.CA.conv3", hidden, wide, (1, 1), bias=True)
        return state | conv(f"{name}.project.conv", wide, cout, (1, 1)) | batch_norm(f"{name}.project.bn", cout)

    def plain(name: str, cin: int, cout: int, kernel: int) -> State:
        state = conv(f"{name}.conv", cin, cout, (kernel, kernel)) | batch_norm(f"{name}.bn", cout)
        return state | {f"{name}.prelu.weight": tensor(cout)}

    state = plain("features.0", 3, 64, 3) | plain("features.1", 1, 64, 3)
    state |= block("features.2", 64, 64, (64, 32, 32))
    for i in range(9):
        state |= block(f"features.3.model.{i}", 64, 64, (96, 32))
    state |= block("features.4", 64, 128, (128, 64, 64))
    for i in range(16):
        state |= block(f"features.5.model.{i}", 128, 128, (192, 64))
    state |= block("features.6", 128, 256, (256, 256, 256, 256))
    for i in range(6):
        state |= block(f"features.7.model.{i}", 256, 256, (172, 170, 170))
    state |= plain("features.8", 256, 512, 1)
    for head in range(2):
        name = f"cat_head{head}.CoordAtt"
        for part, kernel in (("Linear_h", (1, 7)), ("Linear_w", (7, 1)), ("Linear", (7, 7))):
            state |= conv(f"{name}.{part}.conv", 1, 512, kernel) | batch_norm(f"{name}.{part}.bn", 512)
        state |= conv(f"{name}.conv1", 512, 16, (1, 1), bias=True) | batch_norm(f"{name}.bn1", 16)
        state |= conv(f"{name}.conv2", 16, 512, (1, 1), bias=True) | conv(f"{name}.conv3", 16, 512, (1, 1), bias=True)
    state |= conv("Linear.conv", 1, 512, (7, 7)) | batch_norm("Linear.bn", 512)
    return state | linear("fc", 512, classes) | batch_norm("bn", classes)


def clip_vision(image: int, patch: int, dim: int, layers: int, mlp: int) -> State:
    patches = (image // patch) ** 2
    state = {
        "embeddings.class_embedding": tensor(dim),
        "embeddings.position_embedding.weight": tensor(patches + 1, dim),
        "embeddings.position_ids": torch.arange(patches + 1)[None],
    }
    state |= conv("embeddings.patch_embedding", 3, dim, (patch, patch)) | norm("pre_layrnorm", dim)
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            state |= linear(f"{layer}.self_attn.{name}", dim, dim)
        state |= norm(f"{layer}.layer_norm1", dim) | norm(f"{layer}.layer_norm2", dim)
        state |= linear(f"{layer}.mlp.fc1", dim, mlp) | linear(f"{layer}.mlp.fc2", mlp, dim)
    return state | norm("post_layernorm", dim)
