// What `mvrender.shading` says, for one sample. Every MVR_ number comes from there: none is written here.
// MVR_AT is `sample`, by which this runs for each of a pixel's four samples, where the style varies within a face: run once for a
// pixel, it carries a face on to the pixel's centre even where the face does not reach it, and fine textures shimmer.
MVR_AT in vec3 point;  // in the camera's frame
#ifdef MVR_TEXTURED
MVR_AT in vec2 uv;
uniform sampler2D picture;
uniform float pixel_at_unit_depth;
#endif
#ifdef MVR_COLORED
MVR_AT in vec3 color;
#endif
#ifdef MVR_STYLE_DEPTH
uniform vec2 depth_range;
#endif

out vec4 pixel;

vec3 turned_normal() {
    // Across the pixel the point moves within its face, so that the face's own normal needs no vertex data.
    vec3 normal = normalize(cross(dFdx(point), dFdy(point)));
    return faceforward(normal, point, normal);
}

#ifdef MVR_TEXTURED
vec3 texture_color() {
    // Texels per pixel as if the face were seen straight on: the usual choice, by the longer side of the pixel's
    // footprint, blurs faces seen at a slant, and here each of a pixel's four samples is textured by itself.
    vec2 texel = uv * vec2(textureSize(picture, 0));
    vec2 right = dFdx(texel), up = dFdy(texel);
    float texels = abs(right.x * up.y - right.y * up.x);
    float area = length(cross(dFdx(point), dFdy(point)));
    float level = 0.5 * log2(max(texels, 1e-30) / max(area, 1e-30)) + log2(-point.z * pixel_at_unit_depth);
    return textureLod(picture, uv, level).rgb;
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
#ifdef MVR_TEXTURED
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
    vec3 rgb = turned_normal() * 0.5 + 0.5;
#endif
#ifdef MVR_STYLE_DEPTH
    float share = clamp((-point.z - depth_range.x) / (depth_range.y - depth_range.x), 0.0, 1.0);
    vec3 rgb = vec3(mix(MVR_GREY_NEAR, MVR_GREY_FAR, share));
#endif
#ifdef MVR_STYLE_CLAY
    vec3 rgb = lit(base_color(), turned_normal());
#endif
#ifdef MVR_STYLE_TEXTURE
    vec3 rgb = lit(base_color(), turned_normal());
#endif
    pixel = vec4(rgb, 1.0);
}
