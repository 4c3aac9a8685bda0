//! `firn image list`.

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::bytes,
};
use firn_formats::admin::ImageView;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only images whose names begin so
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let server = global.connect()?;
    let mut images = server.images(&global.cache, None)?;
    if let Some(name) = &args.name {
        images.retain(|image| image.name.starts_with(name));
    }
    show(global.json, &images, |images| text(images))
}

fn text(images: &[ImageView]) -> String {
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            let pushed = jiff::Timestamp::from_second(image.pushed_at);
            vec![
                format!("{}:{}", image.name, image.tag),
                image.digest.chars().take(19).collect(),
                match image.platforms {
                    1 => format!("{} layers", image.layers),
                    platforms => format!("{} layers, {platforms} platforms", image.layers),
                },
                bytes(image.size),
                format!("{} its own", bytes(image.own_bytes)),
                pushed.map_or_else(|_| String::new(), |time| time.to_string()),
            ]
        })
        .collect();
    table(&rows)
}
