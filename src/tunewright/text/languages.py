"""Languages: which one a text is in, and the words that tunewright itself says in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import regex

_SURE = 400  # characters that are enough to tell a language from its neighbors
_SAMPLE = 2000  # characters of a text that tell its language


@dataclass(frozen=True)
class Language:
    """What is said in a language.

    Attributes:
        code: of ISO 639-1.
        name: in English, for instructions to a teacher.
        system_prompt: the first message of samples and exam prompts.
        refusal: what the model is to say when it cannot know.
        blank: asks for the value that belongs in the blank of ``{text}``.
        source: names the document ``{title}``, behind the question and before its mark.
        mark: ends a question.
        declines: how people decline to answer, in lower case, beside the refusal; … stands for up to four words, or
            twelve characters of a script without spaces.
    """

    code: str
    name: str
    system_prompt: str
    refusal: str
    blank: str
    source: str
    mark: str = "?"
    declines: tuple[str, ...] = ()


# fmt: off
_ALL = (
    Language("en", "English", "You answer questions about a collection of documents. If the documents do not give the answer, say that they do not.",
             "The documents do not give the answer to this question.", 'Which {value} belongs in the blank of "{text}"', ', according to "{title}"'),
    Language("de", "German", "Du beantwortest Fragen zu einer Sammlung von Dokumenten. Geben die Dokumente die Antwort nicht, sage das.",
             "Die Dokumente geben auf diese Frage keine Antwort.", "Was gehört in die Lücke von „{text}“", " (aus „{title}“)",
             declines=("das weiß ich nicht", "ich weiß es nicht", "geht aus den dokumenten nicht hervor", "wird nicht erwähnt", "ist nicht angegeben", "keine angabe")),
    Language("fr", "French", "Tu réponds à des questions sur une collection de documents. Si les documents ne donnent pas la réponse, dis-le.",
             "Les documents ne donnent pas la réponse à cette question.", "Que faut-il mettre à la place du blanc dans « {text} »", ", d’après « {title} »", " ?",
             ("je ne sais pas", "n'est pas mentionné", "ne mentionne pas", "n'est pas indiqué", "ne précise pas")),
    Language("es", "Spanish", "Respondes preguntas sobre una colección de documentos. Si los documentos no dan la respuesta, dilo.",
             "Los documentos no dan la respuesta a esta pregunta.", "¿Qué falta en el hueco de «{text}»", ", según «{title}»",
             declines=("no lo sé", "no se menciona", "no se indica", "los documentos no dan", "el texto no menciona", "los documentos no mencionan")),
    Language("pt", "Portuguese", "Você responde a perguntas sobre uma coleção de documentos. Se os documentos não derem a resposta, diga isso.",
             "Os documentos não dão a resposta a esta pergunta.", "O que falta na lacuna de «{text}»", ", segundo «{title}»",
             declines=("não sei", "não é mencionado", "não menciona", "não está indicado", "os documentos não dão", "os documentos não mencionam")),
    Language("it", "Italian", "Rispondi a domande su una raccolta di documenti. Se i documenti non danno la risposta, dillo.",
             "I documenti non danno la risposta a questa domanda.", "Che cosa manca nello spazio vuoto di «{text}»", ", secondo «{title}»",
             declines=("non lo so", "non è menzionato", "non è indicato", "i documenti non danno", "il testo non menziona")),
    Language("nl", "Dutch", "Je beantwoordt vragen over een verzameling documenten. Als de documenten het antwoord niet geven, zeg dat dan.",
             "De documenten geven geen antwoord op deze vraag.", "Wat hoort er op de open plek van ‘{text}’", ", volgens ‘{title}’",
             declines=("ik weet het niet", "wordt niet genoemd", "niet vermeld", "staat niet in")),
    Language("sv", "Swedish", "Du svarar på frågor om en samling dokument. Om dokumenten inte ger svaret, säg det.",
             "Dokumenten ger inget svar på den här frågan.", "Vad ska stå i luckan i ”{text}”", ", enligt ”{title}”",
             declines=("jag vet inte", "nämns inte", "anges inte", "framgår inte")),
    Language("pl", "Polish", "Odpowiadasz na pytania o zbiór dokumentów. Jeśli dokumenty nie podają odpowiedzi, powiedz to.",
             "Dokumenty nie podają odpowiedzi na to pytanie.", "Co należy wpisać w miejsce luki w „{text}”", " (według „{title}”)",
             declines=("nie wiem", "nie podano", "nie wspomniano", "dokumenty nie podają")),
    Language("cs", "Czech", "Odpovídáš na otázky o sbírce dokumentů. Pokud dokumenty odpověď nedávají, řekni to.",
             "Dokumenty na tuto otázku nedávají odpověď.", "Co patří na vynechané místo v „{text}“", " (podle „{title}“)",
             declines=("nevím", "není uvedeno", "není zmíněno", "dokumenty neuvádějí")),
    Language("ru", "Russian", "Ты отвечаешь на вопросы о собрании документов. Если документы не дают ответа, скажи об этом.",
             "Документы не дают ответа на этот вопрос.", "Что пропущено в отрывке «{text}»", " (из «{title}»)",
             declines=("я не знаю", "не знаю", "не указано", "не упоминается", "не сказано", "нет информации", "в документах нет ответа", "в тексте нет ответа", "этой информации … нет", "такой информации … нет", "ответа … нет")),
    Language("uk", "Ukrainian", "Ти відповідаєш на запитання про збірку документів. Якщо документи не дають відповіді, скажи про це.",
             "Документи не дають відповіді на це запитання.", "Що пропущено в уривку «{text}»", " (з «{title}»)",
             declines=("не знаю", "не вказано", "не згадується", "немає інформації", "у документах немає відповіді")),
    Language("tr", "Turkish", "Bir belge koleksiyonu hakkındaki soruları yanıtlıyorsun. Belgeler yanıtı vermiyorsa bunu söyle.",
             "Belgeler bu sorunun yanıtını vermiyor.", "“{text}” cümlesindeki boşluğa ne gelmelidir", " (“{title}” belgesine göre)",
             declines=("bilmiyorum", "belirtilmemiş", "belirtilmiyor", "bahsedilmiyor", "bilgi yok")),
    Language("ar", "Arabic", "أنت تجيب عن أسئلة حول مجموعة من الوثائق. إذا لم تعطِ الوثائق الجواب، فقل ذلك.",
             "لا تعطي الوثائق جواب هذا السؤال.", "ما الذي يملأ الفراغ في «{text}»", "، وفق «{title}»", "؟",
             ("لا أعرف", "لا أعلم", "لم يُذكر", "لم يذكر", "غير مذكور", "لا تذكر الوثائق", "لا توجد معلومات", "لا تعطي … إجابة", "لا تقدم … إجابة", "لا توجد إجابة")),
    Language("fa", "Persian", "تو به پرسش‌هایی دربارهٔ مجموعه‌ای از اسناد پاسخ می‌دهی. اگر اسناد پاسخ را ندهند، همین را بگو.",
             "اسناد پاسخ این پرسش را نمی‌دهند.", "جای خالی در «{text}» چیست", "، بر پایهٔ «{title}»", "؟",
             ("نمی‌دانم", "ذکر نشده", "اشاره نشده", "اطلاعاتی وجود ندارد")),
    Language("hi", "Hindi", "आप दस्तावेज़ों के एक संग्रह के बारे में प्रश्नों के उत्तर देते हैं। यदि दस्तावेज़ उत्तर नहीं देते, तो यह बताएँ।",
             "दस्तावेज़ इस प्रश्न का उत्तर नहीं देते।", "«{text}» के रिक्त स्थान में क्या आएगा", " («{title}» के अनुसार)",
             declines=("मुझे नहीं पता", "मुझे पता नहीं", "उल्लेख नहीं", "जानकारी नहीं", "नहीं बताया गया", "नहीं दिया गया", "उत्तर नहीं है", "जवाब नहीं है", "उत्तर नहीं मिल")),
    Language("zh", "Chinese", "你回答关于一组文档的问题。如果文档没有给出答案，请说明这一点。",
             "文档没有给出这个问题的答案。", "“{text}”的空白处应填什么", "（据《{title}》）", "？",
             ("我不知道", "不知道", "没有提到", "未提及", "没有提及", "没有说明", "无法回答", "没有相关信息", "没有…答案", "找不到…答案", "没有给出")),
    Language("ja", "Japanese", "あなたは文書の集まりについての質問に答えます。文書に答えがない場合は、そう述べてください。",
             "文書にはこの質問の答えがありません。", "「{text}」の空欄に入るのは何ですか", "（「{title}」による）", "？",
             ("わかりません", "分かりません", "記載されていません", "記載がありません", "書かれていません", "述べられていません", "情報がありません")),
    Language("ko", "Korean", "당신은 문서 모음에 관한 질문에 답합니다. 문서에 답이 없으면 없다고 말하세요.",
             "문서에는 이 질문의 답이 없습니다.", "“{text}”의 빈칸에 들어갈 말은 무엇입니까", " (“{title}”에 따르면)",
             declines=("모르겠습니다", "알 수 없습니다", "언급되지 않", "나와 있지 않", "정보가 없")),
    Language("vi", "Vietnamese", "Bạn trả lời câu hỏi về một tập tài liệu. Nếu tài liệu không có câu trả lời, hãy nói như vậy.",
             "Tài liệu không có câu trả lời cho câu hỏi này.", "Cần điền gì vào chỗ trống trong “{text}”", ", theo “{title}”",
             declines=("tôi không biết", "không được đề cập", "không đề cập", "không có thông tin")),
    Language("id", "Indonesian", "Anda menjawab pertanyaan tentang kumpulan dokumen. Jika dokumen tidak memberikan jawabannya, katakan demikian.",
             "Dokumen tidak memberikan jawaban atas pertanyaan ini.", "Apa yang mengisi bagian kosong pada “{text}”", ", menurut “{title}”",
             declines=("saya tidak tahu", "tidak disebutkan", "tidak dijelaskan", "tidak ada informasi")),
)
# fmt: on
LANGUAGES = {language.code: language for language in _ALL}
ENGLISH = LANGUAGES["en"]
DOTTED_THOUSANDS = frozenset(("de", "es", "pt", "it", "nl", "tr", "id", "vi", "da", "el"))  # 3.440 is 3440

_SCRIPTS = (
    ("ja", regex.compile(r"[\p{Hiragana}\p{Katakana}]")),
    ("zh", regex.compile(r"\p{Han}")),
    ("ko", regex.compile(r"\p{Hangul}")),
    ("ar", regex.compile(r"\p{Arabic}")),
    ("hi", regex.compile(r"\p{Devanagari}")),
    ("ru", regex.compile(r"\p{Cyrillic}")),
)
_READ_AS = {"ms": "id"}  # Indonesian of a few lines is taken for Malay, whose readers understand it
_LETTER = regex.compile(r"\p{L}")


def script_language(text: str) -> str:
    """Return the code of the largest language of the script that a fifth of the letters are in; "en" for Latin."""
    text = text[:_SAMPLE]
    letters = len(_LETTER.findall(text))
    for code, pattern in _SCRIPTS:
        if letters and len(pattern.findall(text)) >= letters / 5:
            return code
    return "en"


def language_code(text: str) -> str:
    """Return the code of a text's language (py3langid, after Lui & Baldwin 2012); "en" for a text without letters."""
    sample = text[:_SAMPLE]
    if not _LETTER.search(sample):
        return "en"
    import py3langid

    code = str(py3langid.classify(sample)[0])
    return _READ_AS.get(code, code)


def document_languages(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the code of each document's language, by its identifier.

    A short text, and one in a language that tunewright does not speak, takes the collection's main language where both
    are in the same script: Hindi of two lines is easily taken for Marathi.
    """
    codes = {identity: language_code(text) for identity, text in texts.items()}
    main = Counter(codes.values()).most_common(1)[0][0] if codes else ENGLISH.code
    script = {identity: script_language(text) for identity, text in texts.items()}
    script_of_main = next((script[identity] for identity, code in codes.items() if code == main), "")

    def is_sure(identity: str) -> bool:
        return codes[identity] in LANGUAGES and len(texts[identity]) >= _SURE

    return {
        identity: code if is_sure(identity) or script[identity] != script_of_main else main
        for identity, code in codes.items()
    }


def main_language(texts: Iterable[str]) -> str:
    """Return the code of the language that most of the texts are in; "en" for none."""
    counts = Counter(language_code(text) for text in texts)
    return counts.most_common(1)[0][0] if counts else "en"
