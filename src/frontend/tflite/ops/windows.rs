//! Operators that slide a window over an image.

use super::{Translated, View, too_large};
use crate::error::{Error, Result};
use crate::frontend::tflite::schema;
use crate::graph::{OpKind, Padding, PoolOp, Window};
use crate::limits;

impl View<'_> {
    /// The window over an input of `[height, width]`, with its padding made explicit. All sizes are those of `[y, x]`.
    ///
    /// SAME: ⌈input / stride⌉ results; what is missing is padded, the odd element after. VALID: no padding.
    fn window(
        &self,
        input: [usize; 2],
        size: [usize; 2],
        stride: [i32; 2],
        dilation: [i32; 2],
        padding: schema::Padding,
    ) -> Result<Window> {
        let title = self.op.title();
        let positive = |what: &str, values: [i32; 2]| -> Result<[usize; 2]> {
            let mut out = [0; 2];
            for (out, value) in out.iter_mut().zip(values) {
                *out = match usize::try_from(value) {
                    Ok(value) if value > limits::WINDOW as usize => return Err(too_large(&title, what, value)),
                    Ok(value) if value > 0 => value,
                    _ => return Err(Error::model(format!("the {what} of {title} is {value}, not positive"))),
                };
            }
            Ok(out)
        };
        let stride = positive("stride", stride)?;
        let dilation = positive("dilation", dilation)?;
        if let Some(&size) = size.iter().find(|&&size| size > limits::WINDOW as usize) {
            return Err(too_large(&title, "window", size));
        }
        if size.contains(&0) {
            return Err(Error::model(format!("the window of {title} is empty")));
        }
        let mut pads = [[0; 2]; 2];
        match padding {
            schema::Padding::VALID => {}
            schema::Padding::SAME => {
                for i in 0..2 {
                    // No overflow: sizes and dilations are below 2^14, inputs below 2^33.
                    let extent = (size[i] - 1) * dilation[i] + 1;
                    let last = (input[i].div_ceil(stride[i]).max(1) - 1) * stride[i];
                    let total = (last + extent).saturating_sub(input[i]);
                    pads[i] = [total / 2, total - total / 2];
                }
            }
            other => {
                return Err(Error::model(format!(
                    "the padding of {title} is {}, neither SAME nor VALID",
                    other.0
                )));
            }
        }
        let window = Window {
            size,
            stride,
            dilation,
            padding: Padding {
                top: pads[0][0],
                bottom: pads[0][1],
                left: pads[1][0],
                right: pads[1][1],
            },
        };
        if window.output(input).is_none() {
            return Err(Error::model(format!(
                "the window of {title}, {}x{}, does not fit the input, {}x{}",
                size[0], size[1], input[0], input[1]
            )));
        }
        Ok(window)
    }

    pub(super) fn conv(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_conv_2_doptions();
        let options = self.required(schema::BuiltinOptions::Conv2DOptions, table)?;
        let [_, height, width, _] = self.ranked(0, "input")?;
        let [_, filter_height, filter_width, _] = self.ranked(1, "filter")?;
        let window = self.window(
            [height, width],
            [filter_height, filter_width],
            [options.stride_h(), options.stride_w()],
            [options.dilation_h_factor(), options.dilation_w_factor()],
            options.padding(),
        )?;
        let activation = self.activation(options.fused_activation_function())?;
        self.with_all(OpKind::Conv2d { window, activation })
    }

    pub(super) fn depthwise(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_depthwise_conv_2_doptions();
        let options = self.required(schema::BuiltinOptions::DepthwiseConv2DOptions, table)?;
        let [_, height, width, channels] = self.ranked(0, "input")?;
        let [_, filter_height, filter_width, results] = self.ranked(1, "filter")?;
        let window = self.window(
            [height, width],
            [filter_height, filter_width],
            [options.stride_h(), options.stride_w()],
            [options.dilation_h_factor(), options.dilation_w_factor()],
            options.padding(),
        )?;
        let multiplier = results.checked_div(channels).unwrap_or(0);
        if multiplier == 0 || multiplier * channels != results {
            return Err(Error::model(format!(
                "DEPTHWISE_CONV_2D makes {results} channels of {channels}, which is no multiple"
            )));
        }
        // 0 where the converter left it to the shapes.
        let stated = options.depth_multiplier();
        if stated != 0 && usize::try_from(stated) != Ok(multiplier) {
            return Err(Error::model(format!(
                "the depth multiplier of DEPTHWISE_CONV_2D is {stated}, but its shapes say {multiplier}"
            )));
        }
        let activation = self.activation(options.fused_activation_function())?;
        self.with_all(OpKind::DepthwiseConv2d {
            window,
            multiplier,
            activation,
        })
    }

    pub(super) fn pool(&self, op: PoolOp) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_pool_2_doptions();
        let options = self.required(schema::BuiltinOptions::Pool2DOptions, table)?;
        let [_, height, width, _] = self.ranked(0, "input")?;
        let size = [options.filter_height(), options.filter_width()].map(|size| usize::try_from(size).unwrap_or(0));
        let stride = [options.stride_h(), options.stride_w()];
        let window = self.window([height, width], size, stride, [1, 1], options.padding())?;
        let activation = self.activation(options.fused_activation_function())?;
        self.with_all(OpKind::Pool2d { op, window, activation })
    }
}
