//! Tests of the gateway as a whole. Owns nothing of the product.

mod whole_gateway;
