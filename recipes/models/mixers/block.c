/* block.c: the modules that belong to no mixer: a model's own, and the norms around mixers. */
#include "recipes/models/mixers/mixers.h"

const struct module_type top_embed = {"embed", MODULE_EMBEDDING, .gguf = {"token_embd"}};
const struct module_type top_positions = {"positions", MODULE_EMBEDDING,
                                          .gguf = {"position_embd", .precise = true}};
const struct module_type top_embed_norm = {"embed_norm", MODULE_NORM, .gguf = {"token_embd_norm"}};
const struct module_type top_norm = {"norm", MODULE_NORM, .gguf = {"output_norm"}};
const struct module_type top_head = {"head", MODULE_HEAD, .stream = 3, .gguf = {"output"}};

const struct module_type norm_input = {"input_norm", MODULE_NORM, .gguf = {"attn_norm"}};
const struct module_type norm_post_attention = {"post_attention_norm", MODULE_NORM,
                                                .gguf = {"post_attention_norm"}};
const struct module_type norm_pre_ffn = {"pre_ffn_norm", MODULE_NORM, .gguf = {"ffn_norm"}};
const struct module_type norm_post_ffn = {"post_ffn_norm", MODULE_NORM, .gguf = {"post_ffw_norm"}};
