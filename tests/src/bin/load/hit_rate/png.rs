//! A drawing as PNG, for pages that cannot show SVG.
//!
//! Core. The only font is compiled in, so that the picture is the same on every machine.

use std::sync::Arc;

use ::png::{BitDepth, ColorType, Compression, Encoder, EncodingError, Filter};
use dejavu::sans_condensed;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

/// Returns `svg` as PNG, at one and a half times its size.
///
/// Panics if `svg` is not valid SVG.
pub fn from_svg(svg: &str) -> Vec<u8> {
    let mut fonts = Database::new();
    for font in [sans_condensed::regular(), sans_condensed::bold()] {
        fonts.load_font_data(font.to_vec());
    }
    fonts.set_sans_serif_family("DejaVu Sans");
    let options = Options { fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).expect("the drawing is SVG");
    let size = tree.size().to_int_size().scale_by(SCALE).expect("the drawing has a size");
    let mut pixels = Pixmap::new(size.width(), size.height()).expect("neither side is zero");
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pack(&pixels).expect("memory takes all bytes")
}

/// Encodes `pixels` without transparency, because the background covers the whole picture.
fn pack(pixels: &Pixmap) -> Result<Vec<u8>, EncodingError> {
    let rgb: Vec<u8> =
        pixels.pixels().iter().flat_map(|at| [at.red(), at.green(), at.blue()]).collect();
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, pixels.width(), pixels.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::High);
    encoder.set_filter(Filter::NoFilter); // plain areas compress best without a filter
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(png)
}

/// Sharp on screens with a high resolution, and still a small file.
const SCALE: f32 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of dark pixels of a drawing with `inside` on white.
    fn ink(inside: &str) -> usize {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"60\" height=\"30\" \
             font-family=\"sans-serif\"><rect width=\"60\" height=\"30\" fill=\"white\"/>\
             {inside}</svg>"
        );
        let pixels = Pixmap::decode_png(&from_svg(&svg)).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (90, 45));
        pixels.pixels().iter().filter(|pixel| pixel.red() < 128).count()
    }

    #[test]
    fn lines_and_letters_are_drawn_without_the_fonts_of_the_system() {
        assert_eq!(ink(""), 0);
        assert_eq!(ink("<path d=\"M10 10h20\" stroke=\"black\" stroke-width=\"2\"/>"), 90);
        let plain = ink("<text x=\"5\" y=\"20\">LRU</text>");
        let bold = ink("<text x=\"5\" y=\"20\" font-weight=\"bold\">LRU</text>");
        assert!(0 < plain && plain < bold, "{plain} and {bold}");
    }
}
