//! A map as a PNG: colours for numbers, coasts, a title, a colour bar with its scale.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "colours and pixels are within their ranges"
)]

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};

type Colour = [u8; 3];

const PAPER: Colour = [255, 255, 255];
const INK: Colour = [30, 34, 40];
const FAINT: Colour = [120, 126, 134];
const MARGIN: usize = 56;
const TITLE: usize = 84;
const BAR: usize = 96;

/// Colours from the lowest number to the highest.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    /// Blue below, red above, pale in the middle: for differences.
    Diverging,
    /// Dark violet to pale yellow: for amounts.
    Sequential,
}

impl Scale {
    fn stops(self) -> &'static [Colour] {
        match self {
            Self::Diverging => &[
                [5, 48, 97],
                [33, 102, 172],
                [67, 147, 195],
                [146, 197, 222],
                [209, 229, 240],
                [247, 247, 247],
                [253, 219, 199],
                [244, 165, 130],
                [214, 96, 77],
                [178, 24, 43],
                [103, 0, 31],
            ],
            Self::Sequential => &[
                [13, 8, 50],
                [62, 15, 112],
                [120, 28, 109],
                [176, 49, 91],
                [225, 83, 60],
                [249, 140, 40],
                [250, 200, 90],
                [252, 250, 200],
            ],
        }
    }

    /// The colour of a number of `0.0..=1.0`.
    fn colour(self, at: f32) -> Colour {
        let stops = self.stops();
        let place = at.clamp(0.0, 1.0) * (stops.len() - 1) as f32;
        let low = (place as usize).min(stops.len() - 2);
        let part = place - low as f32;
        let mixed = |band: usize| {
            let (one, other) = (f32::from(stops[low][band]), f32::from(stops[low + 1][band]));
            (one + (other - one) * part).round() as u8
        };
        [mixed(0), mixed(1), mixed(2)]
    }
}

/// What to draw.
pub(crate) struct Map<'a> {
    /// Above it.
    pub(crate) title: &'a str,
    /// Below the title.
    pub(crate) subtitle: &'a str,
    /// Under the scale.
    pub(crate) unit: &'a str,
    /// Rows, and numbers in a row.
    pub(crate) size: [usize; 2],
    /// Row by row.
    pub(crate) values: &'a [f32],
    /// Whether a place is land: its coast is drawn.
    pub(crate) land: &'a [bool],
    /// The numbers of the ends of the scale.
    pub(crate) range: [f32; 2],
    /// The colours.
    pub(crate) scale: Scale,
}

/// Pixels.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        let pixels = PAPER.iter().copied().cycle().take(width * height * 3).collect();
        Self { width, height, pixels }
    }

    fn set(&mut self, x: usize, y: usize, colour: Colour) {
        self.blend(x, y, colour, 255);
    }

    fn blend(&mut self, x: usize, y: usize, colour: Colour, cover: u8) {
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y * self.width + x) * 3;
        for (own, new) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            let (old, cover) = (u32::from(*own), u32::from(cover));
            *own = ((old * (255 - cover) + u32::from(new) * cover) / 255) as u8;
        }
    }

    fn frame(&mut self, x: usize, y: usize, width: usize, height: usize) {
        for at in 0..=width {
            self.set(x + at, y, INK);
            self.set(x + at, y + height, INK);
        }
        for at in 0..=height {
            self.set(x, y + at, INK);
            self.set(x + width, y + at, INK);
        }
    }

    /// Writes a text; `x` is its middle if it is centred, its start otherwise.
    fn text(&mut self, text: &str, x: usize, y: usize, style: &Style) {
        let weight = if style.is_bold { FontWeight::Bold } else { FontWeight::Regular };
        let rasters: Vec<_> =
            text.chars().filter_map(|letter| get_raster(letter, weight, style.height)).collect();
        let width: usize = rasters.iter().map(|raster| raster.width()).sum();
        let mut left = if style.is_centred { x.saturating_sub(width / 2) } else { x };
        for raster in rasters {
            for (row, line) in raster.rows().enumerate() {
                for (column, &cover) in line.iter().enumerate() {
                    self.blend(left + column, y + row, style.colour, cover);
                }
            }
            left += raster.width();
        }
    }
}

struct Style {
    height: RasterHeight,
    colour: Colour,
    is_bold: bool,
    is_centred: bool,
}

/// Writes the map to `path`.
pub(crate) fn write(path: &Path, map: &Map<'_>) -> Result<(), Box<dyn Error>> {
    let [rows, columns] = map.size;
    let [low, high] = map.range;
    let (width, height) = (columns + 2 * MARGIN, rows + TITLE + BAR + MARGIN / 2);
    let mut canvas = Canvas::new(width.max(560), height);
    let small = RasterHeight::Size16;
    let style = |height, colour, is_bold, is_centred| Style { height, colour, is_bold, is_centred };
    canvas.text(map.title, MARGIN, 18, &style(RasterHeight::Size24, INK, true, false));
    canvas.text(map.subtitle, MARGIN, 52, &style(small, FAINT, false, false));
    for row in 0..rows {
        for column in 0..columns {
            let at = row * columns + column;
            let mut colour = map.scale.colour((map.values[at] - low) / (high - low));
            if is_coast(map, row, column) {
                colour = colour.map(|band| band / 3);
            }
            canvas.set(MARGIN + column, TITLE + row, colour);
        }
    }
    canvas.frame(MARGIN - 1, TITLE - 1, columns + 1, rows + 1);
    let plain = style(small, INK, false, true);
    let (bar, top) = (columns.min(720), TITLE + rows + 24);
    let left = MARGIN + (columns - bar) / 2;
    for x in 0..bar {
        let colour = map.scale.colour(x as f32 / (bar - 1) as f32);
        (0..14).for_each(|y| canvas.set(left + x, top + y, colour));
    }
    canvas.frame(left - 1, top - 1, bar + 1, 15);
    for tick in 0..=4 {
        let part = tick as f32 / 4.0;
        let x = left + (part * bar as f32) as usize;
        (0..5).for_each(|y| canvas.set(x.min(left + bar), top + 15 + y, INK));
        canvas.text(&format!("{:.1}", low + (high - low) * part), x, top + 22, &plain);
    }
    canvas.text(map.unit, MARGIN + columns / 2, top + 42, &style(small, FAINT, false, true));
    save(path, &canvas)
}

/// Land that has the sea as a neighbour.
fn is_coast(map: &Map<'_>, row: usize, column: usize) -> bool {
    let [rows, columns] = map.size;
    let is_land = |row: usize, column: usize| map.land[row * columns + column % columns];
    is_land(row, column)
        && (!is_land(row, column + 1)
            || !is_land(row, column + columns - 1)
            || (row > 0 && !is_land(row - 1, column))
            || (row + 1 < rows && !is_land(row + 1, column)))
}

fn save(path: &Path, canvas: &Canvas) -> Result<(), Box<dyn Error>> {
    let file = BufWriter::new(File::create(path)?);
    let (width, height) = (u32::try_from(canvas.width)?, u32::try_from(canvas.height)?);
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&canvas.pixels)?;
    Ok(())
}
