//! Pictures of a report, as SVG in text.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (760, 460);

/// A line and its name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) lines: Vec<Line>,
    /// Whether a line from corner to corner shows where the two axes are equal.
    pub(crate) diagonal: bool,
}

/// Draws a picture; `None` when it has no point.
///
/// # Errors
/// The picture cannot be drawn.
pub(crate) fn draw(picture: &Picture) -> Result<Option<String>> {
    let points = || picture.lines.iter().flat_map(|line| &line.points);
    if points().next().is_none() {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        lines(picture, &area).map_err(|error| anyhow!("failed to draw a plot: {error}"))?;
    }
    Ok(Some(svg))
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn lines(picture: &Picture, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
    area.fill(&WHITE)?;
    let all = || picture.lines.iter().flat_map(|line| &line.points);
    let (left, right) = range(all().map(|point| point.0));
    let (low, high) = range(all().map(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .caption(&picture.title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(left..right, low..high)?;
    chart
        .configure_mesh()
        .x_desc(picture.x)
        .y_desc(picture.y)
        .draw()?;
    if picture.diagonal {
        let (from, to) = (left.max(low), right.min(high));
        chart.draw_series(LineSeries::new([(from, from), (to, to)], BLACK.mix(0.3)))?;
    }
    for (number, line) in picture.lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        chart
            .draw_series(LineSeries::new(
                line.points.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .position(SeriesLabelPosition::LowerLeft)
        .draw()?;
    area.present()?;
    Ok(())
}

/// The least and the largest, with a little room.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let room = ((high - low) * 0.03).max(0.005);
    (low - room, high + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_one_svg_that_names_its_lines() {
        let line = Line {
            name: "first".to_owned(),
            points: vec![(0.0, 1.0), (0.5, 0.8)],
        };
        let mut picture = Picture {
            title: "hits".to_owned(),
            x: "x",
            y: "y",
            lines: vec![line],
            diagonal: true,
        };
        let svg = draw(&picture).unwrap().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("first") && svg.contains("hits"));
        picture.lines[0].points.clear();
        assert_eq!(draw(&picture).unwrap(), None);
    }
}
