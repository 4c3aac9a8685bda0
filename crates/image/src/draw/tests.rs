use super::*;
use proptest::prelude::*;

fn drawing() -> Drawing {
    Drawing {
        title: "app <1> & \"more\"".to_owned(),
        subtitle: "2 layers".to_owned(),
        layers: vec![
            DrawnLayer {
                label: "glibc zlib".to_owned(),
                size: "300 B".to_owned(),
                bytes: 300,
                heat: 0.01,
                frequency: "0 of 2".to_owned(),
                paths: vec![("glibc".to_owned(), 200), ("zlib".to_owned(), 100)],
                steps: vec![false, false],
            },
            DrawnLayer {
                label: "app".to_owned(),
                size: "10 B".to_owned(),
                bytes: 10,
                heat: 1.0,
                frequency: "2 of 2".to_owned(),
                paths: vec![("app".to_owned(), 10)],
                steps: vec![true, true],
            },
        ],
        revisions: 2,
    }
}

#[test]
fn equal_images_give_equal_files() {
    let document = svg(&drawing());
    assert_eq!(document, svg(&drawing()));
    assert!(document.contains("app &lt;1&gt; &amp; &quot;more&quot;"));
    assert_eq!(
        document.matches("<g>").count(),
        document.matches("</g>").count()
    );
    assert!(!document.contains("href") && !document.contains("<script"));
    let cells = document
        .matches(&format!("fill=\"{}\"", colour(1.0)))
        .count();
    assert_eq!(
        cells, 4,
        "the layer, the legend, and a cell for each revision"
    );
}

#[test]
fn words_that_do_not_fit_are_cut_or_left_out() {
    let rect = |width: f64, height: f64| Rect {
        x: 0.0,
        y: 0.0,
        width,
        height,
    };
    assert_eq!(fitting(&rect(20.0, 40.0), 11.0, "python"), None);
    assert_eq!(fitting(&rect(200.0, 9.0), 11.0, "python"), None);
    let cut = fitting(&rect(40.0, 40.0), 11.0, "python-numpy").unwrap();
    assert!(cut.contains(">pyth…<"), "{cut}");
}

proptest! {
    #[test]
    fn rectangles_have_their_areas_and_stay_inside(
        sizes in proptest::collection::vec(0_u64..1_000_000_000, 0..60),
    ) {
        let area = Rect { x: 10.0, y: 20.0, width: 1000.0, height: 600.0 };
        let total: u64 = sizes.iter().sum();
        let rects = squarify(&sizes, area);
        prop_assert_eq!(rects.len(), sizes.iter().filter(|size| **size > 0).count());
        for (place, rect) in rects {
            let wanted = sizes[place] as f64 / total as f64 * 600_000.0;
            prop_assert!((rect.width * rect.height - wanted).abs() < 0.01 + wanted * 1e-6);
            prop_assert!(rect.x >= 9.999 && rect.y >= 19.999);
            prop_assert!(rect.x + rect.width <= 1010.001 && rect.y + rect.height <= 620.001);
        }
    }
}
