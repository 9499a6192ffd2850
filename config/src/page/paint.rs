//! How owners look and how figures are written, alike in every picture and table of the page.

use bulkhead_table::{Owner, PartitionId};
use maud::{Markup, html};

use crate::plan::Plan;
use crate::view::Holder;

/// Hues in degrees of the first partitions, chosen to be told apart; later ones go round the circle.
const HUES: [u16; 8] = [208, 28, 152, 326, 262, 186, 52, 4];

/// Degrees from one later hue to the next: the golden angle, which never comes close to an earlier one for long.
const GOLDEN_ANGLE: f64 = 137.508;

/// Class and style of an owner's shapes.
pub(super) struct Paint {
    pub class: &'static str,
    pub style: Option<String>,
}

impl Paint {
    /// Of a partition.
    pub fn partition(id: PartitionId) -> Self {
        let index = usize::from(id);
        let hue = HUES.get(index).map_or_else(
            || (f64::from(id) * GOLDEN_ANGLE).rem_euclid(360.0).round() as u16,
            |hue| *hue,
        );
        // Two strengths, so that neighbours on the circle still differ.
        let strength = if index.is_multiple_of(2) { 70 } else { 55 };
        Self { class: "part", style: Some(format!("--h:{hue};--s:{strength}%")) }
    }

    /// Of a holder of memory.
    pub fn holder(holder: Holder) -> Self {
        match holder {
            Holder::Partition(id) => Self::partition(id),
            Holder::Hypervisor => Self { class: "machine", style: None },
            Holder::Free => Self { class: "slack", style: None },
        }
    }

    /// Of the owner of a window.
    pub fn owner(owner: Owner) -> Self {
        match owner {
            Owner::Partition(id) => Self::partition(id),
            Owner::Housekeeping => Self { class: "machine", style: None },
        }
    }
}

/// A square in the owner's colour and its name.
pub(super) fn chip(paint: &Paint, name: &str) -> Markup {
    html! {
        span.chip {
            svg aria-hidden="true" class=(paint.class) style=[paint.style.as_ref()] {
                rect width="100%" height="100%" {}
            }
            (name)
        }
    }
}

/// The chip of a partition.
pub(super) fn partition_chip(plan: &Plan, id: PartitionId) -> Markup {
    chip(&Paint::partition(id), plan.name_of(id))
}

/// The chip of a partition with its number, which narrow bars show instead of the name.
pub(super) fn numbered_chip(plan: &Plan, id: PartitionId) -> Markup {
    html! { span.none.figure { (number(id)) } " " (partition_chip(plan, id)) }
}

/// The number of a partition: its place in the file, from 1.
pub(super) fn number(id: PartitionId) -> String {
    (u32::from(id) + 1).to_string()
}

/// A bar of a picture to scale: a part of the whole width, with a label where it fits.
pub(super) struct Bar<'b> {
    /// Where it begins, in percent of the width.
    pub from: f64,
    /// How wide it is, in percent of the width.
    pub width: f64,
    /// Top and height in pixels.
    pub vertical: (u32, u32),
    pub paint: Paint,
    /// What it is, for who points at it or hears it.
    pub title: String,
    /// What may be written on it, the longest first; the first that fits is.
    pub labels: &'b [&'b str],
}

/// Width in pixels below which a picture never goes: it scrolls instead.
const LEAST_WIDTH: f64 = 672.0;
/// Width of a letter of a label, generously.
const LETTER: f64 = 7.5;

impl Bar<'_> {
    pub fn draw(&self) -> Markup {
        let pixels = self.width * LEAST_WIDTH / 100.0;
        let fits = |label: &&&str| label.chars().count() as f64 * LETTER + 6.0 <= pixels;
        let label = self.labels.iter().filter(|label| !label.is_empty()).find(fits);
        html! {
            svg class=(self.paint.class) style=[self.paint.style.as_ref()]
                x=(percent(self.from)) width=(percent(self.width))
                y=(self.vertical.0) height=(self.vertical.1) {
                title { (self.title) }
                rect width="100%" height="100%" {}
                @if let Some(label) = label {
                    text.bar-label x="50%" y="50%" { (label) }
                }
            }
        }
    }
}

/// A part of a whole, in percent.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// A length in percent, as SVG reads it. Four digits behind the point are a tenth of a pixel on any screen.
pub(super) fn percent(value: f64) -> String {
    format!("{value:.4}%")
}

/// A share for a person.
pub(super) fn share_text(part: u64, whole: u64) -> String {
    let value = share(part, whole);
    match part {
        0 => "0 %".to_owned(),
        _ if value < 0.1 => "< 0.1 %".to_owned(),
        _ => format!("{value:.1} %"),
    }
}

/// A whole number in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A text from outside, without the characters that HTML forbids.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
