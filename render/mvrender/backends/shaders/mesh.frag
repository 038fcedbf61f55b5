// Shading of one sample. All MVR_ constants come from `mvrender.shading`.
// MVR_AT is `sample` for styles that vary within a face: the shader then runs for each of the four samples of a pixel. Run once per
// pixel, it would extrapolate a face to the pixel's centre, and fine textures would alias.
MVR_AT in vec3 point;  // in the camera's frame
#ifdef MVR_TEXTURED
MVR_AT in vec2 uv;
uniform sampler2D image;
uniform float pixel_at_unit_depth;
#endif
#ifdef MVR_COLORED
MVR_AT in vec3 color;
#endif
#ifdef MVR_STYLE_DEPTH
uniform vec2 depth_range;
#endif

out vec4 pixel;

vec3 facing_normal() {
    // Screen-space derivatives of the point give the face normal without vertex data.
    vec3 normal = normalize(cross(dFdx(point), dFdy(point)));
    return faceforward(normal, point, normal);
}

#if defined(MVR_TEXTURED) && defined(MVR_STYLE_TEXTURE)
vec3 texture_color() {
    // Texels per pixel as if the face were seen frontally. The usual choice, by the longer side of the pixel's footprint, blurs
    // slanted faces; here each of the four samples of a pixel is textured by itself.
    vec2 texel = uv * vec2(textureSize(image, 0));
    vec2 right = dFdx(texel), up = dFdy(texel);
    float texels = abs(right.x * up.y - right.y * up.x);
    float area = length(cross(dFdx(point), dFdy(point)));
    float level = 0.5 * log2(max(texels, 1e-30) / max(area, 1e-30)) + log2(-point.z * pixel_at_unit_depth);
    return textureLod(image, uv, level).rgb;
}
#endif

vec3 base_color() {
    vec3 base = vec3(1.0);
#ifdef MVR_STYLE_CLAY
    base = MVR_CLAY;
#else
#ifdef MVR_COLORED
    base = color;
#endif
#if defined(MVR_TEXTURED) && defined(MVR_STYLE_TEXTURE)
    base *= texture_color();
#endif
#endif
    return base;
}

vec3 lit(vec3 base, vec3 normal) {
    vec4 lights[] = vec4[](MVR_LIGHTS);  // unit direction to the light, strength
    float light = MVR_AMBIENT;
    for (int i = 0; i < lights.length(); ++i) {
        light += lights[i].w * max(dot(normal, lights[i].xyz), 0.0);
    }
    vec3 lit = base * light;
    return min(lit, MVR_KNEE_AT + MVR_KNEE_SLOPE * (lit - MVR_KNEE_AT));
}

void main() {
#ifdef MVR_STYLE_SILHOUETTE
    vec3 rgb = vec3(MVR_SILHOUETTE_GREY);
#endif
#ifdef MVR_STYLE_NORMAL
    vec3 rgb = facing_normal() * 0.5 + 0.5;
#endif
#ifdef MVR_STYLE_DEPTH
    float place = clamp((-point.z - depth_range.x) / (depth_range.y - depth_range.x), 0.0, 1.0);
    vec3 rgb = vec3(mix(MVR_GREY_NEAR, MVR_GREY_FAR, place));
#endif
#ifdef MVR_STYLE_CLAY
    vec3 rgb = lit(base_color(), facing_normal());
#endif
#ifdef MVR_STYLE_TEXTURE
    vec3 rgb = lit(base_color(), facing_normal());
#endif
    pixel = vec4(rgb, 1.0);
#ifdef MVR_TEXTURED
    // Holes, from texels of full size at every distance. Last: the derivatives above need the neighbours.
    if (textureLod(image, uv, 0.0).a < 0.5) {
        discard;
    }
#endif
}
