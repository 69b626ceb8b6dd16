"""What a person would mark right or wrong in six languages: values, refusals and sentences, twenty pairs of each language."""

import pytest

from tunewright.metrics import is_refusal, token_f1
from tunewright.text.languages import LANGUAGES
from tunewright.text.values import gives_value

# (answer, right value, whether a person marks it right)
VALUES = {
    "ru": [
        ("В исследовании участвовало 3440 человек.", "3440", True),
        ("Всего 3 440 участников.", "3440", True),
        ("Средний возраст — 12,5 года.", "12,5", True),
        ("12.5", "12,5", True),
        ("Около 85 % опрошенных.", "85 %", True),
        ("Это было в Москве.", "Москве", True),
        ("Автор — Анна Иванова.", "Анна Иванова", True),
        ("В 2019 году.", "2019", True),
        ("344 человека", "3440", False),
        ("125", "12,5", False),
        ("В Киеве.", "Москве", False),
        ("В 2018 году.", "2019", False),
    ],
    "zh": [
        ("参加者共有120名。", "120", True),
        ("平均年龄为12.5岁。", "12.5", True),
        ("共有一百二十人。", "120", True),
        ("比例是85%。", "85%", True),
        ("在北京举行。", "北京", True),
        ("作者是王小明。", "王小明", True),
        ("2019年。", "2019", True),
        ("人数为３４４０。", "3440", True),
        ("参加者共有1200名。", "120", False),
        ("在上海举行。", "北京", False),
        ("2018年。", "2019", False),
        ("比例是58%。", "85%", False),
    ],
    "ar": [
        ("شارك في الدراسة 120 شخصا.", "120", True),
        ("شارك في الدراسة ١٢٠ شخصا.", "120", True),
        ("متوسط العمر ١٢٫٥ سنة.", "12.5", True),
        ("النسبة ٨٥٪.", "85%", True),
        ("عقد الاجتماع في القاهرة.", "القاهرة", True),
        ("كتبها محمد علي.", "محمد علي", True),
        ("في عام 2019.", "2019", True),
        ("3440", "٣٤٤٠", True),
        ("شارك 1200 شخص.", "120", False),
        ("في بغداد.", "القاهرة", False),
        ("في عام 2018.", "2019", False),
        ("النسبة 58٪.", "85%", False),
    ],
    "hi": [
        ("इसमें १२० लोग थे।", "120", True),
        ("कुल 3440 प्रतिभागी।", "3440", True),
        ("औसत आयु 12.5 वर्ष है।", "12.5", True),
        ("लगभग 85% लोग।", "85%", True),
        ("यह दिल्ली में हुआ।", "दिल्ली", True),
        ("लेखक राम कुमार हैं।", "राम कुमार", True),
        ("वर्ष 2019 में।", "2019", True),
        ("३४४०", "3440", True),
        ("इसमें 1200 लोग थे।", "120", False),
        ("यह मुंबई में हुआ।", "दिल्ली", False),
        ("वर्ष 2018 में।", "2019", False),
        ("लगभग 58% लोग।", "85%", False),
    ],
    "es": [
        ("Participaron 3.440 personas.", "3440", True),
        ("Participaron 3440 personas.", "3.440", True),
        ("La edad media es de 12,5 años.", "12,5", True),
        ("12.5", "12,5", True),
        ("Un 85 % de los encuestados.", "85 %", True),
        ("Se celebró en Córdoba.", "Córdoba", True),
        ("La autora es Ana García.", "Ana García", True),
        ("En el año 2019.", "2019", True),
        ("344 personas", "3440", False),
        ("En Sevilla.", "Córdoba", False),
        ("En 2018.", "2019", False),
        ("125 años", "12,5", False),
    ],
    "ja": [
        ("参加者は120人でした。", "120", True),
        ("１２０人です。", "120", True),
        ("平均年齢は12.5歳です。", "12.5", True),
        ("割合は85％です。", "85%", True),
        ("空欄には東京が入ります。", "東京", True),
        ("著者は山田太郎です。", "山田太郎", True),
        ("2019年です。", "2019", True),
        ("百二十人", "120", True),
        ("参加者は1200人でした。", "120", False),
        ("大阪です。", "東京", False),
        ("2018年です。", "2019", False),
        ("割合は58％です。", "85%", False),
    ],
}
# (answer, whether it declines)
REFUSALS = {
    "ru": [
        ("В документах нет ответа на этот вопрос.", True),
        ("Я не знаю.", True),
        ("Этой информации в тексте нет.", True),
        ("В исследовании не было выявлено различий.", False),
    ],
    "zh": [
        ("文件中没有这个问题的答案。", True),
        ("我不知道。", True),
        ("文中没有提到这一点。", True),
        ("两组之间没有差异。", False),
    ],
    "ar": [
        ("لا تعطي الوثائق إجابة عن هذا السؤال.", True),
        ("لا أعرف.", True),
        ("لم يذكر النص ذلك.", True),
        ("لا يوجد فرق بين المجموعتين.", False),
    ],
    "hi": [
        ("दस्तावेज़ों में इस प्रश्न का उत्तर नहीं है।", True),
        ("मुझे नहीं पता।", True),
        ("पाठ में यह जानकारी नहीं दी गई है।", True),
        ("दोनों समूहों में कोई अंतर नहीं था।", False),
    ],
    "es": [
        ("Los documentos no dan la respuesta a esta pregunta.", True),
        ("No lo sé.", True),
        ("El texto no menciona ese dato.", True),
        ("No hubo diferencias entre los grupos.", False),
    ],
    "ja": [
        ("文書にはこの質問の答えがありません。", True),
        ("わかりません。", True),
        ("本文には記載されていません。", True),
        ("二つの群に差はありませんでした。", False),
    ],
}
# (answer, right sentence, whether more than half of the words are shared)
SENTENCES = {
    "ru": [
        ("Порт закрыт зимой.", "Порт закрыт зимой из-за льда.", True),
        ("порт закрыт зимой", "Порт закрыт зимой.", True),
        ("Маяк горит каждую ночь.", "Порт закрыт зимой из-за льда.", False),
        ("Капитан платит утром.", "Порт закрыт зимой.", False),
    ],
    "zh": [
        ("港口冬天关闭。", "港口在冬天关闭。", True),
        ("港口冬天关闭", "港口冬天关闭。", True),
        ("灯塔每天晚上都亮着。", "港口在冬天关闭。", False),
        ("船长早上付款。", "港口冬天关闭。", False),
    ],
    "ar": [
        ("الميناء مغلق في الشتاء.", "الميناء مغلق في الشتاء بسبب الجليد.", True),
        ("الميناء مغلق في الشتاء", "الميناء مغلق في الشتاء.", True),
        ("المنارة مضاءة كل ليلة.", "الميناء مغلق في الشتاء بسبب الجليد.", False),
        ("يدفع القبطان صباحا.", "الميناء مغلق في الشتاء.", False),
    ],
    "hi": [
        ("बंदरगाह सर्दियों में बंद रहता है।", "बंदरगाह सर्दियों में बर्फ के कारण बंद रहता है।", True),
        ("बंदरगाह सर्दियों में बंद रहता है", "बंदरगाह सर्दियों में बंद रहता है।", True),
        ("प्रकाशस्तंभ हर रात जलता है।", "बंदरगाह सर्दियों में बंद रहता है।", False),
        ("कप्तान सुबह भुगतान करता है।", "बंदरगाह सर्दियों में बंद रहता।", False),
    ],
    "es": [
        ("El puerto cierra en invierno.", "El puerto cierra en invierno por el hielo.", True),
        ("el puerto cierra en invierno", "El puerto cierra en invierno.", True),
        ("La luz brilla cada noche.", "El puerto cierra en invierno por el hielo.", False),
        ("El capitán paga temprano.", "El puerto cierra en invierno.", False),
    ],
    "ja": [
        ("港は冬に閉まる。", "港は冬には閉まる。", True),
        ("港は冬に閉まる", "港は冬に閉まる。", True),
        ("灯台は毎晩光っています。", "港は冬に閉まる。", False),
        ("船長は朝に支払う。", "港湾施設が閉鎖された。", False),
    ],
}


@pytest.mark.parametrize("code", VALUES)
def test_twenty_pairs_of_each_language_are_marked_as_a_person_would(code):
    assert len(VALUES[code]) + len(REFUSALS[code]) + len(SENTENCES[code]) == 20
    question = LANGUAGES[code].system_prompt
    wrong = [(a, gold) for a, gold, right in VALUES[code] if gives_value(a, [gold], question) is not right]
    wrong += [text for text, declines in REFUSALS[code] if is_refusal(text, LANGUAGES[code].refusal) is not declines]
    wrong += [
        (a, gold, token_f1(a, gold)) for a, gold, near in SENTENCES[code] if (token_f1(a, gold) > 0.5) is not near
    ]
    assert wrong == []
