"""Languages: recognized, cut into sentences and words, asked and declined in."""

from itertools import pairwise

import pytest

from tunewright.metrics import is_refusal, token_f1
from tunewright.text.blanks import BLANK, blanks, word_blanks
from tunewright.text.languages import LANGUAGES, document_languages, language_code, main_language
from tunewright.text.normalization import is_evidence, normalize, question_fault, words
from tunewright.text.sentences import sentences
from tunewright.text.values import gives_value

# Each list is the sentences of one text, marked by hand.
TEXTS = {
    "de": ["Dr. Müller kam am 3. März 2020 nach Köln.", "Er blieb z. B. nur zwei Tage.", "Warum?", "Das weiß niemand!",
           "Über 3.500 Menschen sahen zu.", "Ärzte warnten davor.", "„Es reicht“, sagte sie.", "Das kostet ca. 5,5 Mio. Euro."],
    "fr": ["M. Dupont est arrivé à 10 h 30.", "Il a vu 3,5 km de côte.", "Pourquoi ?", "Personne ne le sait !", "Élise a répondu.",
           "« C'est fini », dit-elle.", "Le rapport compte 120 pages."],
    "es": ["La Sra. López llegó en 2019.", "¿Quién la vio?", "¡Nadie!", "El informe tiene 120 páginas.", "Ángel no respondió.",
           "Costó 3.500 euros.", "Fue el fin."],
    "ru": ["Г-н Иванов приехал в Москву в 2019 году.", "Он врач.", "Кто его видел?", "Никто!", "В отчёте 120 страниц.", "Это было в мае."],
    "zh": ["他在2019年来到北京。", "他是一名医生！", "你知道吗？", "报告有120页。", "会议于五月举行。"],
    "ja": ["彼は2019年に東京へ来た。", "彼は医者です。", "知っていますか？", "報告書は120ページです。"],
    "ar": ["وصل الطبيب إلى القاهرة في عام 2019.", "هل رآه أحد؟", "لا أحد!", "يحتوي التقرير على 120 صفحة."],
    "hi": ["वह 2019 में दिल्ली आया।", "वह एक डॉक्टर है।", "क्या किसी ने उसे देखा?", "रिपोर्ट में 120 पृष्ठ हैं।"],
    "tr": ["Doktor 2019 yılında Ankara'ya geldi.", "Onu kim gördü?", "Kimse!", "İstanbul'da 120 kişi vardı.", "Çok geçti."],
}  # fmt: skip
UNSPACED = ("zh", "ja")


@pytest.mark.parametrize("code", TEXTS)
def test_sentences_end_where_a_reader_ends_them(code):
    text = ("" if code in UNSPACED else " ").join(TEXTS[code])
    expected, position = [], 0
    for sentence in TEXTS[code]:
        start = text.index(sentence, position)
        expected.append((start, start + len(sentence)))
        position = expected[-1][1]
    found = sentences(text)
    shared = len(set(found) & set(expected))
    assert 2 * shared / (len(found) + len(expected)) >= 0.95, [text[a:b] for a, b in found]
    assert all(end <= start for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize("code", TEXTS)
def test_a_text_is_recognized(code):
    assert main_language([" ".join(TEXTS[code])]) == code


def test_a_short_text_takes_the_language_of_its_collection_and_script():
    long = " ".join(TEXTS["ru"]) * 4
    codes = document_languages({"a": long, "b": long, "c": "Он врач и отец.", "d": "He is a doctor and father of two."})
    assert codes == {"a": "ru", "b": "ru", "c": "ru", "d": "en"}
    assert language_code("12 34 %") == "en" and document_languages({}) == {}


@pytest.mark.parametrize(
    ("sentence", "is_one"),
    [
        ("Все люди рождаются свободными и равными в своём достоинстве и правах.", True),
        ("人人生而自由，在尊严和权利上一律平等，他们赋有理性和良心。", True),
        ("सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।", True),
        ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا وضميرا.", True),
        ("Статья 2", False),
        ("第二条", False),
        ("他是医生。", False),
        ("Кто из этих людей видел его в тот день в городе?", False),
    ],
)
def test_evidence_is_found_in_every_script(sentence, is_one):
    assert is_evidence(sentence) == is_one


def test_words_keep_their_marks_and_digits_of_every_script_are_numbers():
    assert words("वह दिल्ली आया।") == ["वह", "दिल्ली", "आया"]
    assert words("自由与平等") == list("自由与平等")
    assert normalize("عام ٢٠١٩") == "عام 2019" and words("२०१९ में")[0] == "2019"
    assert words("Ärzte, naïve 3,440 x_1 2.52") == ["ärzte", "naïve", "3,440", "x_1", "2.52"]


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_asks_and_declines_in_itself(code):
    language = LANGUAGES[code]
    question = (
        language.blank.format(value="number", text=f"A {BLANK} B") + language.source.format(title="T") + language.mark
    )
    assert BLANK in question and "T" in question and "{" not in question
    assert question_fault(question.replace("A ", "one two three four "), "x") is None
    assert is_refusal(language.refusal, LANGUAGES["en"].refusal)
    for phrase in language.declines:
        assert is_refusal(f"{phrase.replace('…', '')}.", LANGUAGES["en"].refusal), phrase


ANSWERS = [  # language, answer, gold, right
    ("ru", "В исследовании участвовало 3440 человек.", "3440", True),
    ("ru", "Это было в Москве.", "Москве", True),
    ("ru", "Это было в Киеве.", "Москве", False),
    ("zh", "空白处应填兄弟关系。", "兄弟关系", True),
    ("zh", "参加者共有120名。", "120", True),
    ("zh", "参加者共有1200名。", "120", False),
    ("zh", "朋友关系", "兄弟关系", False),
    ("ar", "شارك ١٢٠ شخصا", "120", True),
    ("ar", "والحقوق", "والحقوق", True),
    ("ar", "والواجبات", "والحقوق", False),
    ("hi", "इसमें १२० लोग थे।", "120", True),
    ("hi", "मनुष्यों", "मनुष्यों", True),
    ("hi", "मनुष्य", "मनुष्यों", False),
    ("es", "Participaron 35 personas", "3.5", False),
    ("es", "La respuesta es «humanos».", "humanos", True),
    ("ja", "空欄には東京が入ります。", "東京", True),
    ("ja", "大阪です。", "東京", False),
]  # fmt: skip


@pytest.mark.parametrize(("code", "answer", "gold", "right"), ANSWERS)
def test_values_are_compared_in_every_script(code, answer, gold, right):
    assert gives_value(answer, [gold], "?") == right, code


def test_shared_words_count_characters_where_there_are_no_spaces():
    assert token_f1("人人生而自由", "人人生而平等") == pytest.approx(4 / 6)
    assert token_f1("Все люди свободны", "Все люди равны") == pytest.approx(2 / 3)


def test_blanks_of_other_scripts_leave_a_context_and_no_answer():
    [number] = blanks("该研究在2019年的北京共有120名护士参加，他们来自不同医院。")[-1:]
    assert (number.kind, number.value, number.text.count(BLANK)) == ("count", "120", 1)
    for sentence in (
        "人人生而自由，在尊严和权利上一律平等，他们赋有理性和良心。",
        "Все люди рождаются свободными и равными в своём достоинстве.",
    ):
        found = word_blanks(sentence)
        assert found
        for blank in found:
            assert blank.value in sentence and blank.value not in blank.text.replace(BLANK, "")


@pytest.mark.parametrize(
    "answer",
    [
        "لا يوجد فرق بين المجموعتين في السنة الأولى.",
        "Los documentos no clasificados se guardan diez años.",
        "I documenti non archiviati sono 120.",
        "В документах нет ошибок.",
        "Dokumenty nejsou staré.",
    ],
)
def test_an_answer_that_denies_something_is_no_refusal(answer):
    assert not is_refusal(answer, LANGUAGES["en"].refusal)


def test_a_korean_sentence_is_as_long_as_its_translation():
    from tunewright.text.normalization import is_evidence, num_words

    english = "Everyone has the right to life, liberty and the security of person."
    korean = "모든 사람은 생명과 신체의 자유와 안전에 대한 권리를 가진다."
    assert num_words(english) == 12 and num_words(korean) == 12
    assert is_evidence("누구든지 자의적으로 체포, 구금되거나 추방되지 아니한다.")


def test_indonesian_that_is_taken_for_malay_is_answered_in_indonesian():
    text = "Tidak seorang pun boleh diperbudak, dan perbudakan dalam bentuk apapun mesti dilarang."
    assert language_code(text) == "id"
