/* block.c: the modules that belong to no mixer: a model's own, and the norms around mixers. */
#include "recipes/models/mixers/mixers.h"

const struct module_type top_embed = {"embed", MODULE_EMBEDDING, .gguf.stem = "token_embd"};
const struct module_type top_positions = {"positions", MODULE_EMBEDDING,
                                          .gguf.stem = "position_embd", .gguf.precise = true};
const struct module_type top_embed_norm = {"embed_norm", MODULE_NORM,
                                           .gguf.stem = "token_embd_norm"};
const struct module_type top_norm = {"norm", MODULE_NORM, .gguf.stem = "output_norm"};
const struct module_type top_head = {"head", MODULE_HEAD, .stream = 3, .gguf.stem = "output"};

const struct module_type norm_input = {"input_norm", MODULE_NORM, .gguf.stem = "attn_norm"};
const struct module_type norm_post_attention = {"post_attention_norm", MODULE_NORM,
                                                .gguf.stem = "post_attention_norm"};
const struct module_type norm_pre_ffn = {"pre_ffn_norm", MODULE_NORM, .gguf.stem = "ffn_norm"};
const struct module_type norm_post_ffn = {"post_ffn_norm", MODULE_NORM,
                                          .gguf.stem = "post_ffw_norm"};
