from tests.site.every_page import EveryPage


class TestEnglish(EveryPage):
    language = "en"
