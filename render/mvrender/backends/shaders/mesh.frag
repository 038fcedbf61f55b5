#version 330 core
// What `mvrender.shading.shade` says, for one sample. Every MVR_ number comes from there: none is written here.
in vec3 point;  // in the camera's frame
#ifdef TEXCOORD_0_LOC
in vec2 uv;
#endif
#ifdef COLOR_0_LOC
in vec3 color;
#endif

struct Material {
    sampler2D base_color_texture;
};
uniform Material material;

out vec4 pixel;  // alpha tells where something was drawn

vec3 turned_normal() {
    // Across the pixel the point moves within its face, so that the face's own normal needs no vertex data.
    vec3 normal = normalize(cross(dFdx(point), dFdy(point)));
    return faceforward(normal, point, normal);
}

#ifdef HAS_BASE_COLOR_TEX
vec3 texture_color() {
    // Texels per pixel as if the face were seen straight on: the usual choice, by the longer side of the pixel's
    // footprint, blurs faces seen at a slant, and here each of a pixel's four samples is textured by itself.
    vec2 texel = uv * vec2(textureSize(material.base_color_texture, 0));
    vec2 right = dFdx(texel), up = dFdy(texel);
    float texels = abs(right.x * up.y - right.y * up.x);
    float area = length(cross(dFdx(point), dFdy(point)));
    float level = 0.5 * log2(max(texels, 1e-30) / max(area, 1e-30)) + log2(-point.z * MVR_PIXEL_AT_UNIT_DEPTH);
    return textureLod(material.base_color_texture, uv, level).rgb;
}
#endif

vec3 base_color() {
    vec3 base = vec3(1.0);
#ifdef MVR_STYLE_CLAY
    base = MVR_CLAY;
#else
#ifdef COLOR_0_LOC
    base = color;
#endif
#ifdef HAS_BASE_COLOR_TEX
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
    vec2 range = MVR_DEPTH_RANGE;
    float share = clamp((-point.z - range.x) / (range.y - range.x), 0.0, 1.0);
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
