"""PartFeatures is a transformer like others of scikit-learn, except that its rows are images."""

import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.errors import ShapeError

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from partzoo.estimators import PartFeatures  # noqa: E402

# These checks pass tables of numbers, which are no images.
TABLES = "check_estimators_dtypes check_estimators_pickle check_f_contiguous_array_estimator check_fit2d_1feature \
check_fit2d_1sample check_fit2d_predict1d check_fit_check_is_fitted check_fit_idempotent check_fit_score_takes_y \
check_methods_sample_order_invariance check_methods_subset_invariance check_n_features_in \
check_estimators_fit_returns_self check_estimators_overwrite_params check_dict_unchanged \
check_dont_overwrite_attributes check_estimator_sparse_array check_estimator_sparse_matrix \
check_estimator_sparse_tag check_pipeline_consistency check_readonly_memmap_input check_transformer_general \
check_transformer_preserve_dtypes check_transformer_data_not_an_array check_estimators_unfitted \
check_positive_only_tag_during_fit check_fit1d check_estimators_nan_inf".split()


@pytest.fixture
def images(tmp_path):
    """Eight images, of which the odd ones have a bright upper half."""
    random = np.random.default_rng(0)
    names = []
    for number in range(8):
        pixels = random.integers(0, 100, (32, 48, 3), dtype=np.uint8)
        pixels[:16] += np.uint8(number % 2 * 150)
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(names[-1])
    return names


def features(**options):
    return PartFeatures(**{"k": 2, "model": "toy-vit", "background": None, "size": 64} | options)


def test_columns_are_share_place_and_embedding_of_each_part(images):
    made = features()
    table = made.fit_transform(images)
    names = made.get_feature_names_out()
    width = partzoo.load("toy-vit").dim
    assert table.shape == (8, len(names)) == (8, made.n_features_out_) == (8, 2 * (3 + width))
    assert names[:4].tolist() == ["part1_share", "part1_x", "part1_y", "part1_e0"] and names[3 + width] == "part2_share"
    found = partzoo.discover_parts(images, vocabulary=made.vocabulary_)
    for row, parts in zip(table, found, strict=True):
        about = dict(zip(names, row, strict=True))
        for part in (1, 2):
            assert about[f"part{part}_share"] == pytest.approx(parts.areas[part - 1] / (32 * 48))
            if part in parts.present:
                x, y = parts.centroids[part - 1]
                assert about[f"part{part}_x"] == pytest.approx((x - 23.5) / 48, abs=1e-6)
                assert about[f"part{part}_y"] == pytest.approx((y - 15.5) / 32, abs=1e-6)
            embedding = [about[f"part{part}_e{i}"] for i in range(width)]
            assert np.linalg.norm(embedding) == pytest.approx(part in parts.present, abs=1e-6)


def test_fit_and_transform_give_what_fit_transform_gives_and_other_images_get_the_same_columns(images):
    made = features(embeddings=False)
    table = made.fit_transform(images)
    assert table.shape == (8, 6)
    again = features(embeddings=False).fit(images)
    np.testing.assert_array_equal(again.transform(images), table)
    np.testing.assert_array_equal(again.transform(np.array(images)[[5, 2]]), table[[5, 2]])
    np.testing.assert_array_equal(again.transform([Image.open(images[3])]), table[[3]])


def test_an_absent_part_is_all_zeros():
    made = features()
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made.set_params(background="boundary").fit([image, image[::-1]])
    blank = made.transform([np.full((32, 32, 3), 90, np.uint8)])
    assert blank.shape == (1, made.n_features_out_) and not blank.any()


def test_clones_and_pickles_keep_parameters_and_results(images):
    made = features(seed=3)
    assert clone(made).get_params() == made.get_params() and not hasattr(clone(made), "vocabulary_")
    table = made.fit_transform(images)
    again = pickle.loads(pickle.dumps(made))
    assert again.get_params() == made.get_params()
    np.testing.assert_array_equal(again.transform(images), table)
    with pytest.raises(NotFittedError):
        clone(made).transform(images)
    with pytest.raises(NotFittedError):
        clone(made).get_feature_names_out()


def test_a_grid_search_over_a_pipeline_chooses_the_number_of_parts(images):
    classes = np.arange(8) % 2
    pipeline = make_pipeline(features(embeddings=False), LogisticRegression(C=100))
    search = GridSearchCV(pipeline, {"partfeatures__k": [1, 2]}, cv=2, error_score="raise")
    search.fit(images, classes)
    assert search.best_params_ == {"partfeatures__k": 2} and search.best_score_ > 0.7
    assert (search.predict(images) == classes).mean() > 0.7
    assert search.best_estimator_[:-1].get_feature_names_out().tolist()[:2] == ["part1_share", "part1_x"]


def test_a_column_of_a_table_is_a_list_of_images(images):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"image": images, "number": np.arange(8.0)})
    made = ColumnTransformer([("parts", features(embeddings=False), ["image"]), ("rest", "passthrough", ["number"])])
    found = made.fit_transform(table)
    assert found.shape == (8, 7)
    np.testing.assert_array_equal(found[:, :6], features(embeddings=False).fit_transform(images).astype(float))
    assert made.get_feature_names_out()[0] == "parts__part1_share"
    with pytest.raises(ShapeError, match="one column"):
        features().fit(table)


def test_the_parts_of_a_part_model_are_described_by_its_descriptors(images):
    model = "partformer-resnet18.faces-k8"
    made = PartFeatures(None, model=model).fit(images[:1])
    row = made.transform(images[:1])[0].reshape(8, -1)
    parts = partzoo.discover_parts(images[0], model=model)
    present = [part - 1 for part in parts.present]
    np.testing.assert_allclose(row[present, 3:], parts.descriptors[present], rtol=1e-6)
    assert not np.delete(row, present, 0).any()


def test_scikit_learn_s_own_checks_that_need_no_table_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(
            features(), expected_failed_checks=dict.fromkeys(TABLES, "it passes a table of numbers"), on_skip=None
        )
    passed = {each["check_name"] for each in results if each["status"] == "passed"}
    assert {
        "check_get_params_invariance", "check_set_params", "check_no_attributes_set_in_init", "check_do_not_raise_errors_in_init_or_set_param",
        "check_parameters_default_constructible", "check_estimator_cloneable", "check_estimator_repr",
    } <= passed  # fmt: skip
    print(sorted((each["check_name"], each["status"], repr(each["exception"])[:70]) for each in results))
