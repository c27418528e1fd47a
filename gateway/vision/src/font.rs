//! Letters for the line of text burned into a still: capitals, digits and a few signs, 5 × 7 dots. Owns the drawing of text;
//! refuses other scripts: what it has no letter for becomes a question mark, so names are drawn by their ASCII identifier.

use crate::picture::RgbPicture;

/// Dots per letter, the gap to the next included.
const ADVANCE: u32 = 6;
/// Dots per line.
const HEIGHT: u32 = 7;

/// Rows from the top, five dots each, leftmost dot highest.
#[rustfmt::skip]
const GLYPHS: [(char, [u8; 7]); 43] = [
    ('0', [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110]),
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('3', [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100]),
    ('A', [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('B', [0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110]),
    ('C', [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('D', [0b11100, 0b10010, 0b10001, 0b10001, 0b10001, 0b10010, 0b11100]),
    ('E', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111]),
    ('F', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('G', [0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111]),
    ('H', [0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('I', [0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('J', [0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('K', [0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001]),
    ('L', [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111]),
    ('M', [0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001]),
    ('N', [0b10001, 0b10001, 0b11001, 0b10101, 0b10011, 0b10001, 0b10001]),
    ('O', [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('P', [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('Q', [0b01110, 0b10001, 0b10001, 0b10001, 0b10101, 0b10010, 0b01101]),
    ('R', [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001]),
    ('S', [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110]),
    ('T', [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('U', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('V', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('W', [0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b10101, 0b01010]),
    ('X', [0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001]),
    ('Y', [0b10001, 0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100]),
    ('Z', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111]),
    ('-', [0b00000, 0b00000, 0b00000, 0b11111, 0b00000, 0b00000, 0b00000]),
    ('_', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b11111]),
    (':', [0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b01100, 0b00000]),
    ('.', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100]),
    ('/', [0b00000, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b00000]),
    ('?', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b00000, 0b00100]),
    (' ', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000]),
];

/// Draws white text on a black bar with its top left corner at (x, y), `scale` pixels per dot;
/// see [`size`] for how much room it takes.
pub(crate) fn draw(rgb: &mut RgbPicture, x: u32, y: u32, scale: u32, text: &str) {
    let letters: Vec<[u8; 7]> = text.chars().map(glyph).collect();
    let (width, height) = size(text, scale);
    for bar_y in y..y + height {
        for bar_x in x..x + width {
            rgb.set_pixel(bar_x, bar_y, [0; 3]);
        }
    }
    for (rows, left) in letters.iter().zip((0..).map(|i| x + (i * ADVANCE + 1) * scale)) {
        for (row, top) in rows.iter().zip((0..).map(|i| y + (i + 1) * scale)) {
            for dot in (0..5).filter(|dot| row & (0b1_0000 >> dot) != 0) {
                for offset in 0..scale * scale {
                    rgb.set_pixel(left + dot * scale + offset % scale, top + offset / scale, [255; 3]);
                }
            }
        }
    }
}

/// Width and height of the bar that a text takes, pixels.
pub(crate) fn size(text: &str, scale: u32) -> (u32, u32) {
    let letters = u32::try_from(text.chars().count()).unwrap_or(0);
    ((letters * ADVANCE + 1) * scale, (HEIGHT + 2) * scale)
}

fn glyph(letter: char) -> [u8; 7] {
    let letter = letter.to_ascii_uppercase();
    let find = |wanted: char| GLYPHS.iter().find(|(c, _)| *c == wanted).map(|(_, rows)| *rows);
    find(letter).or_else(|| find('?')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_inside_its_bar_and_clipped_at_the_edge() {
        let mut rgb = RgbPicture::new(60, 30).unwrap();
        rgb.pixels.fill(90);
        draw(&mut rgb, 2, 2, 2, "1");
        let white = rgb.pixels.chunks(3).filter(|p| *p == [255; 3]).count();
        assert_eq!(white, 10 * 4, "ten dots of four pixels");
        assert_eq!(rgb.pixel(2, 2), [0; 3]);
        assert_eq!(rgb.pixel(40, 2), [90; 3]);
        draw(&mut rgb, 50, 25, 3, "clipped 街");
    }

    #[test]
    fn every_glyph_is_unique() {
        for (i, (c, rows)) in GLYPHS.iter().enumerate() {
            assert!(GLYPHS.iter().skip(i + 1).all(|(d, other)| c != d && rows != other), "{c}");
        }
    }
}
