"""Pages whose text is known: drawn here, or written as PDF by hand."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

__all__ = ["INVOICE", "INVOICE_TABLE", "PARAGRAPHS", "article", "invoice", "pdf_of_pictures", "pdf_of_text", "png"]

INVOICE = [
    "Northwind Traders Ltd.",
    "17 Harbour Street, Bristol BS1 4RW",
    "Invoice 2024-117",
    "Date: 21 November 2024",
    "Customer: Ada Lovelace",
]
INVOICE_TABLE = [
    ["Item", "Quantity", "Unit price", "Amount"],
    ["Copper wire, 2 mm", "12", "3.50", "42.00"],
    ["Gear wheel, 48 teeth", "4", "18.25", "73.00"],
    ["Punched cards", "500", "0.02", "10.00"],
    ["Lamp oil", "3", "6.40", "19.20"],
]
TOTAL = "Total due: 144.20 EUR"
PARAGRAPHS = """\
The quick survey of the coast began in the early spring of that year and was finished before the first storms of autumn.
Every evening the crew wrote down the depth of the water, the colour of the sand and the names of the birds.
None of the maps that were printed in the capital showed the second channel, so the captain decided to draw a new one.
When the ship returned in October, the drawings were copied by hand and sent to three libraries.
""".splitlines()


def invoice() -> Image.Image:
    """An invoice with a table of four columns, 1240 x 1000."""
    page = Image.new("RGB", (1240, 1000), "white")
    draw = ImageDraw.Draw(page)
    for number, text in enumerate(INVOICE):
        draw.text((80, 60 + 52 * number), text, fill="black", font=_font(40 if number == 0 else 28))
    lefts = (80, 560, 780, 1000)
    for number, row in enumerate(INVOICE_TABLE):
        for left, text in zip(lefts, row, strict=True):
            draw.text((left, 400 + 60 * number), text, fill="black", font=_font(28))
        draw.line((70, 390 + 60 * number, 1170, 390 + 60 * number), fill="gray", width=2)
    draw.text((80, 820), TOTAL, fill="black", font=_font(32))
    return page


def article() -> tuple[Image.Image, list[str]]:
    """A page with a heading over two columns, and its lines in reading order."""
    page = Image.new("RGB", (1240, 1000), "white")
    draw = ImageDraw.Draw(page)
    heading = "A new chart of the northern islands"
    draw.text((300, 50), heading, fill="black", font=_font(38))
    lines = [heading]
    for column in range(2):
        top = 160
        for paragraph in PARAGRAPHS[2 * column : 2 * column + 2]:
            for line in _wrapped(paragraph, 500, _font(26)):
                draw.text((80 + 580 * column, top), line, fill="black", font=_font(26))
                lines.append(line)
                top += 42
            top += 30
    return page, lines


def pdf_of_pictures(*pages: Image.Image) -> bytes:
    """A PDF as a scanner writes it: each page a picture, at 150 dpi."""
    buffer = BytesIO()
    pages[0].save(buffer, "PDF", resolution=150, save_all=True, append_images=pages[1:])
    return buffer.getvalue()


def pdf_of_text(*pages: list[str], rotate: int = 0) -> bytes:
    """A PDF as a program writes it: lines of Helvetica of 14 points on A4 pages.

    Args:
        pages: The lines of each.
        rotate: How far a viewer is to turn the pages, in degrees.
    """
    count = len(pages)
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(count))
    font = f"{3 + 2 * count} 0 R"
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {count} >>"]
    resources = f"/Resources << /Font << /F1 {font} >> >>"
    page = f"/Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Rotate {rotate} {resources}"
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -22 Td " for line in lines)
        content = f"BT /F1 14 Tf 72 760 Td {shown}ET"
        objects += [
            f"<< {page} /Contents {4 + 2 * number} 0 R >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    data, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return data + f"{end}startxref\n{len(data)}\n%%EOF\n".encode()


def png(image: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
