"""PyTorch beside hone on the same GPU: attention, a product, and a training step of the shape of
`hone bench train` (124 M parameters, bf16, batch 32 x 1,024). Prints lines like hone bench's."""
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def timed(work, flops):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return f"{best * 1e3:9.3f} ms {flops / best * 1e-9:10.1f} GFLOP/s"


class Block(nn.Module):
    def __init__(self, width, ffn, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, ffn, bias=False), nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.norm1(self.out(a.transpose(1, 2).reshape(n, t, width)))
        return x + self.norm2(self.down(F.silu(self.gate(x)) * self.up(x)))


class Model(nn.Module):
    def __init__(self, vocab=50304, width=768, ffn=2048, layers=12, heads=12):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, ffn, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), ids.view(-1))


def main():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    print("torch product 8192 bf16      ", timed(lambda: a @ b, 2 * 8192**3))
    q = torch.randn(4, 16, 4096, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    flops = 4 * 4 * 16 * 4096 * 4096 * 128 / 2
    with torch.no_grad():
        work = lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True)
        print("torch attention T4096 D128   ", timed(work, flops))
    for compiled in False, True:
        torch.manual_seed(1)
        model = Model().to("cuda", torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        ids = torch.randint(0, 50304, (32, 1024), device="cuda")
        run = torch.compile(model) if compiled else model

        def step():
            run(ids).backward()
            optimizer.step()
            optimizer.zero_grad()

        weights = sum(p.numel() for p in model.parameters())
        flops = 32 * 1024 * (6 * weights + 6 * 12 * 768 * 1024)
        try:
            print(f"torch train 124M {'compiled' if compiled else 'eager   '}    ", timed(step, flops))
        except Exception as error:  # no compiler on a bare machine, or no memory
            print("torch train:", type(error).__name__, str(error)[:100])


if __name__ == "__main__":
    main()
