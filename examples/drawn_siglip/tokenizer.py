"""The tokenizer of the drawn shop's SigLIP-like model: like SigLIP 2's, pieces of words, and bytes for everything else."""

import json
from collections.abc import Iterable, Iterator

from open_clip.tokenizer import SimpleTokenizer, canonicalize_text
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = SPECIAL = ("<pad>", "</s>", "<unk>")
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def common_words(count: int) -> Iterator[str]:
    """Yield the most frequent English words of the web: CLIP's vocabulary, in which they stand by frequency."""
    whole = (piece.removesuffix("</w>") for piece in SimpleTokenizer().encoder if piece.endswith("</w>"))
    words = (word for word in whole if word.isascii() and word.isalpha() and len(word) > 1)
    yield from (word for _, word in zip(range(count), words, strict=False))


def make_tokenizer(lines: Iterable[str], ids: int, context_length: int) -> PreTrainedTokenizerFast:
    """Train a byte-pair tokenizer of at most `ids` ids on canonicalised lines; its rows end with `</s>`."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=ids, special_tokens=[*SPECIAL, *_BYTES], show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(map(canonicalize_text, lines), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL)]  # a text that spells a byte's name is plain text
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=context_length
    )
