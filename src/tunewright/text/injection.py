"""Text that addresses a model instead of a reader: planted instructions and the control tokens of chat templates.

The kinds are those of indirect prompt injection (Greshake et al. 2023, arXiv 2302.12173; OWASP LLM01): overrides, new
roles, requests for the system prompt, dictated output, control tokens, hidden characters. Patterns match plain
wording only: text that is encoded, spelled apart or implied passes.
"""

from __future__ import annotations

import re
import unicodedata

PLANTED = "text that addresses a model"  # the rejection reason
_PLAIN = str.maketrans({"’": "'", "‘": "'", **dict.fromkeys("\u200b\u200c\u200d\u2060\u00ad")})
_TOKENS = re.compile(
    r"<\|\s*(?:im_start|im_end|im_sep|start_header_id|end_header_id|eot_id|begin_of_text|end_of_text|endoftext|system"
    r"|user|assistant|end|channel|message|return|fim_\w+)\s*\|>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<｜(?:User|Assistant|begin▁of▁sentence|end▁of▁sentence)｜>"
    r"|^\s*(?:#{2,3}|\[)\s*(?:system|assistant)\s*(?:message|prompt)?\s*(?:\]|:)"
    r"|</?(?:system|system_prompt|assistant|instructions?)>",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE = r"(?:above|previous|preceding|prior|earlier|former|foregoing|initial|original|existing|system|developer)"
_ORDERS = r"(?:instructions?|prompts?|directives?|directions|commands?|guidelines|guardrails|messages?|rules)"
_GAP = r"(?:\W+\w+){0,3}?\W+"  # up to three words between
_MODEL = (
    r"(?:(?:helpful |harmless |large )?(?:ai|a\.i\.|artificial intelligence)\b|(?:large )?language model|llm\b"
    r"|chat-?bot|chatgpt|gpt-?\d|assistant\b)"
)
_OVERRIDE = (
    rf"\b(?:ignore|disregard|forget)\b{_GAP}{_BEFORE}\W+(?:\w+\W+)?{_ORDERS}\b"
    r"|\b(?:override|overrule|bypass|discard|neglect)\W+(?:\w+\W+)?(?:all|any|your|the)\W+(?:\w+\W+)?"
    rf"{_BEFORE}\W+(?:instructions?|prompts?|directives?|guardrails)\b"
    rf"|\b(?:ignore|disregard|forget|override)\b{_GAP}{_ORDERS}\W+(?:\w+\W+)?(?:above|before|given (?:to )?you"
    rf"|you (?:were|have been))"
    r"|\b(?:ignore|disregard|forget)\W+(?:all|everything|anything)\W+(?:\w+\W+){0,2}(?:above|before|previously"
    r"|prior|you (?:were|have been|know))\b"
    rf"|\b(?:do not|don't|stop) (?:follow|obey)\w*{_GAP}{_BEFORE}\W+{_ORDERS}\b"
)
_ROLE = (
    rf"\byou are (?:now |from now on |actually )?(?:an?|the|my) (?:\w+[ -]){{0,3}}?{_MODEL}"
    r"|\byou are now (?:in )?(?:\w+ )?(?:dan\b|jailbroken|unrestricted|unfiltered|uncensored|developer mode"
    r"|admin mode|free (?:from|of) (?:all|any|your))"
    r"|\b(?:pretend|act|behave|respond)\W+(?:\w+\W+){0,3}?as (?:if you (?:are|were)"
    r"|an?) (?:\w+[ -]){0,2}?(?:unrestricted|unfiltered|uncensored|jailbroken|dan\b)"
    r"|\bfrom now on,? (?:you|your)\b(?:\W+\w+){0,2}?\W+(?:must|will|shall|should|are|answer|respond|reply|act)\b"
)
_SECRETS = (
    r"\b(?:reveal|print|show|repeat|output|leak|expose|disclose|ignore|forget|override|display|tell me|return)\b"
    r"(?:\W+\w+){0,4}?\W+(?:system|developer|hidden|initial) (?:prompt|message|instructions?)"
    r"|\b(?:your|my) (?:system|developer) (?:prompt|message|instructions?)"
    r"|\bsystem prompts?\s*[:=]|\bnew (?:system )?instructions?\s*:"
)
_DICTATED = (
    rf"\bas an? (?:\w+[ -]){{0,2}}?{_MODEL},? (?:you|please|output|print|write|answer|respond|reply|your|always"
    rf"|never|i (?:can|am|do))"
    rf"|\b(?:note|message|attention|instructions?|important|warning|hint)\b[^.\n]{{0,20}}?(?:to|for|:)\W+(?:(?:any"
    rf"|all|the)\W+)?(?:\w+\W+)?{_MODEL}s?\b(?: (?:reading|processing|summari|reviewing|training)|\s*[:,])"
    rf"|\bif you are an? (?:\w+[ -]){{0,2}}?{_MODEL}"
    r"|\b(?:your (?:reply|answer|response|output) must (?:be|contain|include|start|begin|end)\b[^.\n]{0,30}[\"'“:]"
    r"|(?:respond|reply|answer) (?:only|exclusively) with (?:the )?(?:word|phrase|text|string|following)\b)"
    r"|\b(?:do not|don't|never) (?:tell|mention|reveal|inform)\b[^.\n]{0,40}\b(?:user|these instructions"
    r"|this instruction|this prompt)\b"
)
_OTHER_LANGUAGES = (
    r"\b(?:ignorier\w*|missachte\w*|vergiss|vergessen sie)\b[^.\n]{0,30}\b(?:anweisung|instruktion|vorgabe|befehl)\w*"
    r"|\b(?:ignore[zrs]?|oublie[zrs]?|ne tiens? pas compte)\b[^.\n]{0,30}\b(?:instructions?"
    r"|consignes?)\b[^.\n]{0,15}\b(?:pr[ée]c[ée]dent|ant[ée]rieur|ci-dessus|donn[ée])"
    r"|\b(?:ignor[ae]|ignore[ns]?|olvid[ae]|olvide[ns]?|desconsider[ea])\b[^.\n]{0,30}\b(?:instru(?:cc|ç)(?:iones"
    r"|ión|ões|ão)|[óo]rdenes|indicaciones)\b[^.\n]{0,15}\b(?:anterior|previ|acima|arriba)"
    r"|\b(?:ignora|dimentica)(?:te|re)?\b[^.\n]{0,30}\b(?:istruzioni)\b[^.\n]{0,15}\b(?:precedent|sopra)"
    r"|игнорируй\w*[^.\n]{0,30}(?:инструкци|указани)|忽略[^。\n]{0,8}(?:之前|以上|前面|先前)[^。\n]{0,8}(?:指令|指示|说明|提示)"
    r"|(?:以前|前|上記)の(?:指示|命令)[^。\n]{0,6}無視"
)
_VERBS = ("ignore", "disregard", "forget", "override", "overrule", "bypass", "discard", "neglect", "obey", "not follow")
_MODELS = (" ai ", " ai:", " ai,", "a.i.", "artificial intell", "language model", "llm", "chatbot", "chat-bot", "gpt")
_PROMPTS = ("prompt", "instruct", "message")
_FOREIGN = ("missacht", "vergiss", "vergessen", "ignorier", "oubli", "tiens", "olvid", "desconsid", "dimentic", "ignor")
# The pattern of each kind, with words of which a matching text holds at least one: they are far cheaper to search for.
_KINDS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "overrides instructions": ((*_VERBS, "n't follow", "stop follow"), re.compile(_OVERRIDE)),
    "gives the model a role": (("you are", "pretend", " act", "behave", "respond", "from now on"), re.compile(_ROLE)),
    "reaches for the system prompt": (_PROMPTS, re.compile(_SECRETS)),
    "dictates an output": (
        (*_MODELS, "assistant", "your ", "respond", "reply", "answer", "user", "prompt"),
        re.compile(_DICTATED),
    ),
    "overrides instructions in another language": (
        (*_FOREIGN, "игнорир", "忽略", "無視"),
        re.compile(_OTHER_LANGUAGES),
    ),
}
# Invisible characters that prose does not need: tags (from U+E0000) can carry hidden sentences.
_INVISIBLE = re.compile("[\U000e0001-\U000e007f]{3,}|[\u200b\u2060\ufeff]{8,}")


def control_token(text: str) -> str | None:
    """Return the first token in a text that a chat template could take for the start or end of a turn, or None."""
    match = _TOKENS.search(text) if "<" in text or "[" in text or "##" in text else None
    return match.group().strip() if match else None


def injection_fault(text: str) -> str | None:
    """Return how a text addresses a model, with the matching words, or None.

    Args:
        text: a passage, a question or an answer.
    """
    token = control_token(text)
    if token:
        return f"control token: {token}"
    if not text.isascii() and _INVISIBLE.search(text):
        return "hidden characters"
    plain = " ".join(unicodedata.normalize("NFKC", text).translate(_PLAIN).lower().split())
    for kind, (hints, pattern) in _KINDS.items():
        match = pattern.search(plain) if any(hint in plain for hint in hints) else None
        if match:
            return f"{kind}: {match.group()[:80]}"
    return None
