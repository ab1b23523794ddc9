"""Tokens a second of llama.cpp (llama-cpp-python, its C functions) on a GGUF file: one token as prompt, then greedy ones.

  python bench_llamacpp.py FILE.gguf TOKENS THREADS

The file needs no vocabulary. Prints the number alone; the start of the program and loading are not counted.
"""
import ctypes
import sys
import time

import llama_cpp as ll
import numpy as np


def main():
    path, tokens, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    quiet = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, None)
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
    params = ll.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = tokens + 8, threads, threads
    context = ll.llama_init_from_model(model, params)
    vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    token, best = 1, 0.0
    for turn in range(2):  # the first one reads the file
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        begin = time.perf_counter()
        for _ in range(tokens):
            one = (ll.llama_token * 1)(token)
            if ll.llama_decode(context, ll.llama_batch_get_one(one, 1)):
                sys.exit("llama_decode failed")
            logits = ctypes.cast(ll.llama_get_logits_ith(context, -1), ctypes.POINTER(ctypes.c_float))
            token = int(np.ctypeslib.as_array(logits, shape=(vocab,)).argmax())
        best = max(best, tokens / (time.perf_counter() - begin))
    print(f"{best:.1f}")


main()
