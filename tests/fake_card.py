"""A graphics card that is not there: tensors that say they are on it, and refuse to meet those that are not."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

CARD = torch.device("cuda")
_MOVES = {"to", "cpu", "cuda"}
# An index may stay on the processor, and so may what is copied from or asked about.
_MAY_MEET = {"__getitem__", "__setitem__", "copy_", "device", "__set__", "index_put_"}


class OnCard(torch.Tensor):
    """A tensor of the processor that is taken for one of the card."""


class FakeCard(TorchFunctionMode):
    """While it is on, ``torch.device("cuda")`` is a card, and an operation of tensors on both sides is an error.

    As on a real one: no ``numpy()`` of its tensors, and the device of a result is that of what went in.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__" and getattr(func, "__self__", None) is torch.Tensor.device:
            return CARD if isinstance(args[0], OnCard) else torch.device("cpu")
        if name in _MOVES and args and isinstance(args[0], torch.Tensor):
            return self._moved(name, args, kwargs)
        if name == "__deepcopy__" and isinstance(args[0], OnCard):  # torch asks subclasses for their own
            return torch.nn.Parameter(args[0].detach().clone(), args[0].requires_grad)
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = "cpu"
            with torch._C.DisableTorchFunctionSubclass():
                made = func(*args, **kwargs)
            return made.as_subclass(OnCard) if torch.device(wanted).type == "cuda" else made
        tensors = [each for each in _flat((args, tuple(kwargs.values()))) if isinstance(each, torch.Tensor)]
        on_card = [isinstance(each, OnCard) for each in tensors]
        if any(on_card):
            if name in {"numpy", "__array__"}:
                msg = "a tensor on the card has no numpy(); expected .cpu() first"
                raise TypeError(msg)
            if name == "_has_compatible_shallow_copy_type" and not all(on_card):
                return False  # a module's parameters are made anew on the card
            strangers = [each for each, is_on in zip(tensors, on_card, strict=True) if not is_on and each.dim()]
            if strangers and name not in _MAY_MEET:
                msg = f"{name}: tensors on the card and on the processor"
                raise RuntimeError(msg)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        return _as_card(result) if any(on_card) else result

    @staticmethod
    def _moved(name, args, kwargs):
        tensor, *others = args
        target = {"cpu": torch.device("cpu"), "cuda": CARD}.get(name)
        plain = []
        for each in (*others, *kwargs.values()):
            if isinstance(each, torch.dtype):
                plain.append(each)
            elif isinstance(each, (str, torch.device)):
                target = torch.device(each)
        is_on = isinstance(tensor, OnCard) if target is None else target.type == "cuda"
        with torch._C.DisableTorchFunctionSubclass():
            moved = tensor.as_subclass(torch.Tensor)
            moved = moved.to(*plain) if plain else moved
        return moved.as_subclass(OnCard) if is_on else moved


def _flat(values):
    for each in values:
        if isinstance(each, (tuple, list)):
            yield from _flat(each)
        else:
            yield each


def _as_card(result):
    if isinstance(result, torch.Tensor):
        return result if isinstance(result, (OnCard, torch.nn.Parameter)) else result.as_subclass(OnCard)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(map(_as_card, result))
    if isinstance(result, (tuple, list)):
        return type(result)(map(_as_card, result))
    return result
