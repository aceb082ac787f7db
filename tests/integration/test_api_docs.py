"""The page that shows the API works where there is no internet: all that it loads comes from the service."""

import re
from urllib.parse import urljoin

from tests.api import Api


def test_all_that_the_page_loads_comes_from_here(api: Api) -> None:
    client = api.client()
    page = client.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)

    assert {url.rpartition("/")[2] for url in loaded} == {
        "swagger-ui-bundle.js",
        "swagger-ui.css",
        "favicon-32x32.png",
        "openapi.json",
    }
    for url in loaded:
        assert urljoin(api.url, url).startswith(api.url), url
        assert client.get(url).status_code == 200, url
    assert "https://" not in re.sub(r"<!--.*?-->", "", page.text)


def test_files_beside_those_of_the_page_are_not_served(api: Api) -> None:
    for path in ("/docs/files/../main.py", "/docs/files/%2e%2e/main.py", "/docs/files/none.js", "/docs/files/"):
        assert api.client().get(path).status_code == 404, path
