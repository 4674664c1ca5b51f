from tests.site.every_page import EveryPage


class TestChinese(EveryPage):
    language = "zh"
