"""The loss, computed from the last hidden states so that few float32 logits exist at a time.

With a vocabulary of 50,257, the logits of a batch, their float32 copy and their gradient take more
memory than everything else in a step of GPT-2 small. This loss applies the head to chunks of rows
and computes each chunk's gradients right away, while its logits exist.

Shapes: B sequences, T tokens, N = B * T rows, D width, V vocabulary, P padded vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy, linear, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows of a chunk that go through the exponentials together on a CPU: 32 x 50,257 float32 logits fit
# its last-level cache.
_CACHED_ROWS = 32
# The product of logit gradients and hidden states can exceed fp16's range. The states are scaled down
# for it; the gradients cannot be, since most are about 1 / V, close to fp16's smallest number.
_FP16_HEADROOM = 1 / 64


class HeadLoss:
    """Mean nats per token of a causal LM; it computes the logits, and the model skips its head.

    Until `release()`, the field `logits` of the model's output holds the last hidden states
    `[B, T, D]`, and this loss computes the logits, `chunk_rows` rows at a time. It pads the
    vocabulary to a multiple of `vocab_multiple`, a size that suits matrix units. Padding has a
    logit of -inf, so it is never predicted and gets no gradient; it is not in the parameters.

    `nats_BT` holds the nats of every token of the last batch. Without gradients, `correct_BT`
    holds whether the most likely token was right.

    A model that scales or caps its logits after the head keeps its head, and the loss is computed
    from whole logits. `head_is_last` says whether the head comes last; None tests it with a forward
    pass, which fails on the meta device. `cached_rows` is the number of rows that go through the
    exponentials together; None chooses by device. With `compile`, one compiled kernel computes the
    nats and gradients of a chunk.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        chunk_rows: int = 1024,
        vocab_multiple: int = 1,
        head_is_last: bool | None = None,
        cached_rows: int | None = None,
        compile: bool = False,
    ) -> None:
        self.head = model.get_output_embeddings()
        self.chunk_rows, self.cached_rows, self.compile = chunk_rows, cached_rows, compile
        self.padding = -len(self.head.weight) % vocab_multiple
        self.nats_BT = self.correct_BT = torch.empty(0, 0)
        self.can_take_out = is_head_last(model) if head_is_last is None else head_is_last
        self.take_out()

    def take_out(self) -> None:
        """Makes the model skip its head, if the head is the last thing that it applies."""
        self.is_taken_out = self.can_take_out
        if self.is_taken_out:
            self.head.forward = lambda hidden_BTD: hidden_BTD

    def release(self) -> None:
        """Makes the model apply its head again; this loss then expects logits."""
        vars(self.head).pop("forward", None)
        self.is_taken_out = False

    def logits(self, input_BTX: torch.Tensor) -> torch.Tensor:
        """The logits `[B, T, V]` of what `loss_input` returned."""
        if not self.is_taken_out:
            return input_BTX
        return linear(input_BTX.to(self.head.weight.dtype), self.head.weight, self.head.bias)

    def __call__(self, input_BTX: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """The mean over all tokens, a float32 scalar; `input_BTX` comes from `loss_input`."""
        input_NX, targets_N = input_BTX.flatten(0, 1), targets_BT.flatten()
        if self.is_taken_out:
            loss, nats_N, correct_N = _HeadLoss.apply(
                input_NX,
                self.head.weight,
                self.head.bias,
                targets_N,
                self.chunk_rows,
                self.padding,
                torch.is_grad_enabled(),
                self.cached_rows,
                self.compile,
            )
        else:
            nats_N = cross_entropy(input_NX.float(), targets_N, reduction="none")
            loss, correct_N = nats_N.mean(), input_NX.argmax(1) == targets_N
        self.nats_BT = nats_N.detach().view_as(targets_BT)
        self.correct_BT = correct_N.view_as(targets_BT)
        return loss  # type: ignore[no-any-return]


def loss_input(output: Any) -> torch.Tensor:
    """The part of a model's output that `HeadLoss` needs: hidden states `[B, T, D]`.

    If the model keeps its head, they are logits `[B, T, V]`. The field is called `logits` in both
    cases, because Hugging Face puts the head's result there.
    """
    return output.logits  # type: ignore[no-any-return]


def is_head_last(model: PreTrainedModel) -> bool:
    """Whether the model returns the head's result unchanged, tested with a short forward pass."""
    head, was_training = model.get_output_embeddings(), model.training
    head.forward = lambda hidden_BTD: torch.full_like(hidden_BTD, 1e4)  # large, to exceed any cap
    with torch.no_grad():
        logits_BTD = model.eval()(
            torch.zeros(1, 2, dtype=torch.long, device=head.weight.device)
        ).logits
    model.train(was_training)
    del head.forward
    return bool((logits_BTD == 1e4).all())


class _HeadLoss(torch.autograd.Function):
    """`cross_entropy(linear(hidden, weight, bias), targets)`; forward computes the gradients too."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
        chunk_rows: int,
        padding: int,
        with_grad: bool,
        cached_rows: int | None,
        compile: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The mean, each token's nats and, without gradients, whether each arg-max was right."""
        cached = cached_rows or (_CACHED_ROWS if hidden_ND.device.type == "cpu" else chunk_rows)
        kind, vocab = hidden_ND.device.type, len(weight_VD)
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else weight_VD.dtype
        headroom = _FP16_HEADROOM if dtype == torch.float16 else 1.0
        nats_N = torch.empty_like(targets_N, dtype=torch.float32)
        correct_N = torch.zeros_like(targets_N, dtype=torch.bool)
        wanted = [with_grad and each for each in ctx.needs_input_grad]
        grad_ND = torch.empty_like(hidden_ND) if wanted[0] else None
        grad_VD = torch.zeros_like(weight_VD) if wanted[1] else None
        grad_V = torch.zeros_like(bias_V) if wanted[2] and bias_V is not None else None
        with torch.autocast(kind, enabled=False):
            weight_PD = _padded(weight_VD.to(dtype), padding)
            bias_P = None if bias_V is None else _padded(bias_V.to(dtype)[:, None], padding)[:, 0]
            for first in range(0, len(targets_N), chunk_rows):
                rows = slice(first, first + chunk_rows)
                hidden_RD = hidden_ND[rows].to(dtype)
                logits_RP = linear(hidden_RD, weight_PD, bias_P)
                logits_RP[:, vocab:] = -torch.inf
                if not with_grad:
                    correct_N[rows] = logits_RP.argmax(1) == targets_N[rows]
                if compile and with_grad:
                    nats_N[rows], logits_RP = compiled()(logits_RP, targets_N[rows])
                else:
                    _differentiate(logits_RP, targets_N[rows], nats_N[rows], with_grad, cached)
                if grad_ND is not None:
                    grad_ND[rows] = logits_RP @ weight_PD
                if grad_VD is not None:
                    grad_VD += (logits_RP.T @ (hidden_RD * headroom))[:vocab]
                if grad_V is not None:
                    grad_V += logits_RP[:, :vocab].sum(0, dtype=torch.float32)
        ctx.save_for_backward(grad_ND, grad_VD, grad_V)
        ctx.rows, ctx.headroom = len(targets_N), headroom
        ctx.mark_non_differentiable(nats_N, correct_N)
        return nats_N.mean(), nats_N, correct_N

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the mean, scaled in place; a second backward pass is an error."""
        scale = grad / ctx.rows
        scales = (scale, scale / ctx.headroom, scale)
        grads = (
            None if each is None else each.mul_(own)
            for each, own in zip(ctx.saved_tensors, scales, strict=True)
        )
        return (*grads, None, None, None, None, None, None)


def _padded(rows: torch.Tensor, padding: int) -> torch.Tensor:
    return pad(rows, (0, 0, 0, padding)) if padding else rows


def _differentiate(
    logits_RP: torch.Tensor,
    targets_R: torch.Tensor,
    nats_R: torch.Tensor,
    with_grad: bool,
    cached_rows: int,
) -> None:
    """Writes the nats, and replaces the logits by the gradients of the nats' sum."""
    for first in range(0, len(targets_R), cached_rows):
        rows = slice(first, first + cached_rows)
        targets_1 = targets_R[rows, None]
        own_P = logits_RP[rows].float().log_softmax(1)
        nats_R[rows] = -own_P.gather(1, targets_1)[:, 0]
        if with_grad:
            own_P.exp_().scatter_add_(1, targets_1, own_P.new_full(targets_1.shape, -1.0))
            logits_RP[rows] = own_P


def nats_and_gradients(
    logits_RP: torch.Tensor, targets_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nats of each row and the gradients of their sum; the compiled form of `_differentiate`."""
    log_p_RP = logits_RP.float().log_softmax(1)
    nats_R = -log_p_RP.gather(1, targets_R[:, None])[:, 0]
    is_target_RP = torch.arange(logits_RP.shape[1], device=logits_RP.device) == targets_R[:, None]
    return nats_R, (log_p_RP.exp() - is_target_RP.float()).to(logits_RP.dtype)


@functools.cache
def compiled() -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """`nats_and_gradients` as one kernel that reads logits and writes gradients.

    Separate operations would move float32 copies of the logits through memory seven times.
    """
    return torch.compile(nats_and_gradients)
