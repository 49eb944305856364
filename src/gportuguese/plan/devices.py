"""What GPUs can do and cost: the makers' peaks, measured shares of them, and typical prices."""

from __future__ import annotations

from dataclasses import dataclass

from gportuguese.plan.flops import gpt2_flops

GPT2_SMALL_FLOPS = gpt2_flops(12, 768, 50257, 1024)
"""FLOPs per training token of the runs whose speed was published."""
# mean over the published recipe's five epochs, which freeze 12, 8, 4, 0 and 0 blocks
_RECIPE_FLOPS = GPT2_SMALL_FLOPS - 2 * 12 * 768**2 * (12 + 8 + 4) / 5
FP32_SHARE = 0.5
"""Assumed share of the float32 peak: no published run trained a GPT-2 in float32."""
CONTEXT_BYTES = 600_000_000
"""Assumed memory of CUDA, its libraries and their workspaces, in addition to the tensors."""


@dataclass(frozen=True)
class Device:
    """One kind of GPU."""

    name: str
    memory_gb: tuple[int, ...]
    """The sizes it is sold with, in 10^9 bytes; what a card has above that is a margin."""
    peaks: dict[str, float]
    """Matrix products with float32 sums in FLOP/s, by the precisions that it supports."""
    share: float
    """Share of the 16-bit peak that training a GPT-2 small reaches."""
    source: str
    """Where the share comes from."""
    usd_per_hour: float
    """Typical rent in 2025, an assumption."""
    config: str
    """The shipped config for it."""

    def flops_per_second(self, precision: str) -> float:
        """The speed of training in a precision that the device supports."""
        if precision != "fp32":
            return self.share * self.peaks[precision]
        halves = max(peak for name, peak in self.peaks.items() if name != "fp32")
        return min(FP32_SHARE * self.peaks["fp32"], self.share * halves)


def _peaks(fp32: float, half: float, bf16: bool = True) -> dict[str, float]:
    """Peaks in FLOP/s from TFLOP/s; cards with bf16 are as fast in it as in fp16."""
    peaks = {"fp32": fp32 * 1e12, "fp16": half * 1e12}
    return {**peaks, "bf16": half * 1e12} if bf16 else peaks


_NANOGPT = 108e3 * GPT2_SMALL_FLOPS / 312e12
_V100 = 14.7e3 * _RECIPE_FLOPS / 125e12
_H100 = 108e3 * 468 / 218 * GPT2_SMALL_FLOPS / 989e12
_OF_V100, _OF_H100 = "assumed: a V100's share", "assumed: an H100's share"
_2020 = "GPorTuguese-2 itself, 14,700 tokens/s (2020, fastai)"
_A100 = "nanoGPT, 108,000 tokens/s"
_LLM_C = "nanoGPT on an A100 times llm.c's 468 : 218"
_OF_A100 = "assumed: nanoGPT's share of an A100"
DEVICES = (
    Device("T4", (15,), _peaks(8.1, 65, bf16=False), _V100, _OF_V100, 0.35, "t4"),
    Device("V100", (16, 32), _peaks(15.7, 125, bf16=False), _V100, _2020, 0.60, "v100"),
    Device("A100", (40, 80), _peaks(19.5, 312), _NANOGPT, _A100, 1.60, "h100"),
    Device("H100", (80,), _peaks(67, 989), _H100, _LLM_C, 2.60, "h100"),
    Device("H200", (141,), _peaks(67, 989), _H100, _OF_H100, 3.50, "h100"),
    Device("RTX4090", (24,), _peaks(82.6, 165), _NANOGPT, _OF_A100, 0.45, "rtx"),
)
