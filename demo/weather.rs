//! Two metre temperature of a year, made up: what a reanalysis looks like, without a download.
//!
//! ```text
//! kelvin = zonal mean - height of the land + season + hour of the day + travelling waves
//! ```
//!
//! The continents are a sum of plane waves over the sphere, cut at a height. The same numbers for
//! the same size, whatever the machine.

use std::f32::consts::{PI, TAU};

/// Steps of a day.
pub(crate) const STEPS_PER_DAY: usize = 4;
const WAVES: usize = 90;
const SEED: u64 = 11;

/// The parts of the field that do not change with time, one number for each place.
pub(crate) struct Weather {
    latitudes: usize,
    longitudes: usize,
    base: Vec<f32>,
    season: Vec<f32>,
    /// How much the day warms.
    diurnal: Vec<f32>,
    /// Whether it is land.
    pub(crate) land: Vec<bool>,
}

impl Weather {
    /// On a grid from the north pole to the south pole.
    pub(crate) fn new(latitudes: usize, longitudes: usize) -> Self {
        let waves = waves();
        let count = latitudes * longitudes;
        let mut weather = Self {
            latitudes,
            longitudes,
            base: Vec::with_capacity(count),
            season: Vec::with_capacity(count),
            diurnal: Vec::with_capacity(count),
            land: Vec::with_capacity(count),
        };
        for row in 0..latitudes {
            let latitude = latitude(row, latitudes);
            for column in 0..longitudes {
                let longitude = TAU * column as f32 / longitudes as f32;
                weather.add(latitude, height(&waves, latitude, longitude));
            }
        }
        weather
    }

    fn add(&mut self, latitude: f32, height: f32) {
        let (sine, cosine) = latitude.sin_cos();
        // From the coast inland.
        let inland = (height * 2.5).clamp(0.0, 1.0);
        let mountain = height.max(0.0).powi(2) * 14.0;
        self.land.push(height > 0.0);
        self.base.push(302.0 - 52.0 * sine * sine - mountain);
        self.season.push(sine * (4.0 + 16.0 * inland));
        // Land warms by day; ice near the poles and the sea hardly do.
        self.diurnal.push(cosine.powf(1.3) * (0.4 + 7.5 * inland.sqrt()));
    }

    /// Fills `values` with the field at `step` of a year.
    pub(crate) fn fill(&self, step: usize, values: &mut [f32]) {
        let day = step as f32 / STEPS_PER_DAY as f32;
        let season = (TAU * (day - 201.0) / 366.0).cos();
        let hour = TAU * (step % STEPS_PER_DAY) as f32 / STEPS_PER_DAY as f32;
        let sun: Vec<f32> = (0..self.longitudes)
            .map(|column| {
                // Warmest two hours after noon.
                let local = hour + TAU * column as f32 / self.longitudes as f32;
                (local - TAU * 14.0 / 24.0).cos()
            })
            .collect();
        for (row, values) in values.chunks_mut(self.longitudes).enumerate() {
            let latitude = latitude(row, self.latitudes);
            let storm = 5.0 * (2.0 * latitude).sin().powi(2);
            let at = row * self.longitudes;
            for (column, value) in values.iter_mut().enumerate() {
                let place = at + column;
                let longitude = TAU * column as f32 / self.longitudes as f32;
                let wave = (5.0 * longitude - 0.9 * day + 3.0 * latitude).sin()
                    + 0.6 * (8.0 * longitude - 1.7 * day).sin();
                *value = self.base[place]
                    + self.season[place] * season
                    + self.diurnal[place] * sun[column]
                    + storm * wave;
            }
        }
    }
}

fn latitude(row: usize, latitudes: usize) -> f32 {
    PI / 2.0 - PI * row as f32 / (latitudes - 1).max(1) as f32
}

/// Direction, phase and height of the waves of which the land is made.
fn waves() -> Vec<([f32; 3], f32, f32)> {
    let mut state = SEED;
    let mut unit = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    (0..WAVES)
        .map(|number| {
            let count = 1.4 + 26.0 * (number as f32 / WAVES as f32).powi(2);
            let (z, turn) = (2.0 * unit() - 1.0, TAU * unit());
            let flat = (1.0 - z * z).sqrt();
            let direction = [flat * turn.cos(), flat * turn.sin(), z].map(|part| part * count);
            (direction, TAU * unit(), 0.55 / count.powf(1.1))
        })
        .collect()
}

/// Height of the land at a place; the sea is below 0.
fn height(waves: &[([f32; 3], f32, f32)], latitude: f32, longitude: f32) -> f32 {
    let (sine, cosine) = latitude.sin_cos();
    let place = [cosine * longitude.cos(), cosine * longitude.sin(), sine];
    let sum: f32 = waves
        .iter()
        .map(|(direction, phase, high)| {
            let along: f32 = direction.iter().zip(place).map(|(one, other)| one * other).sum();
            high * (along + phase).cos()
        })
        .sum();
    sum - 0.22
}
